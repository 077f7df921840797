"""From YAML files and command-line overrides to a checked :class:`~r2v_core.config.schema.Config`.

Order of precedence, weakest first: schema defaults; the files under ``defaults:`` (depth first, later ones win, a
file reached twice counts once); the file itself; overrides. Mappings merge key by key, everything else (lists too)
is replaced. Values may use OmegaConf interpolation: ``${oc.env:VAR,default}`` and ``${paths.data}/x``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from r2v_core.config.explain import explain, schema_keys, shown, unknown_key
from r2v_core.config.schema import Config
from r2v_core.config.secrets import is_secret
from r2v_core.config.yamlfile import YamlFile, parse_value, read_yaml
from r2v_core.errors import R2VError, nearest

_OVERRIDE_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OPTIONS = "benchmark.options"


@dataclass(frozen=True)
class LoadedConfig:
    """A checked config and where each of its values came from."""

    config: Config
    sources: dict[str, str]
    """Dotted key of each leaf → the file (relative to the project where possible), 'override' or 'default'."""
    path: Path
    named_models: Mapping[str, str] = field(default_factory=dict)
    """``teacher`` or ``judge`` → provider and model that its name stands for, where a file of the project says so."""


def load_config(
    path: str | Path,
    overrides: Sequence[str],
    project: Path | None,
    options_model: Callable[[str], type[BaseModel]],
) -> LoadedConfig:
    """Merge, resolve and check a config, before any work is done with it.

    Args:
        path: a YAML file, relative to ``project``; the suffix may be left out.
        overrides: ``dotted.key=value`` items, the value in YAML (``null``, ``[1, 2]``, ``1e-3``, text).
        project: the root that relative paths start from; the working directory unless given.
        options_model: what a benchmark's ``benchmark.options`` are checked against, by the benchmark's name.

    Raises:
        R2VError: naming file and line (or override), key, value and what is expected, one line for each problem.
    """
    project = (project or Path.cwd()).resolve()
    file = _find(project / path, str(path), project)
    data: dict[str, Any] = Config.model_validate({}).model_dump(mode="json")
    origins: dict[str, str] = {}
    problems: list[str] = []
    for layer in _chain(file, project, ()):
        name = _shown(layer.path, project)
        _drop_empty_sections(layer.data)
        _merge(data, layer.data)
        origins |= {key: f"{name}:{line}" for key, line in layer.lines.items()}
    for text in overrides:
        problems += _override(data, origins, text)
    problems += _refuse_secrets(data, origins)
    interpolated, unresolved = _interpolate(data, origins)
    if problems or unresolved:
        raise _error(file, project, problems + unresolved)

    config, wrong = _check(Config, data, interpolated, "")
    try:
        options, wrong_options = _check(options_model(data["benchmark"]["name"]), data, interpolated, _OPTIONS)
        wrong |= wrong_options
    except R2VError as error:
        wrong["benchmark.name"] = str(error)
    except (TypeError, KeyError):
        pass  # 'benchmark' or its name has another type: already in `wrong`
    wrong |= {key: f"{value} is not possible; expected a finite number" for key, value in _leaves(data) if _odd(value)}
    if wrong:
        raise _error(file, project, [f"{key} ({_origin(key, origins)}): {what}" for key, what in wrong.items()])
    assert isinstance(config, Config)
    assert options is not None
    config.benchmark.options = options.model_dump(mode="json")
    leaves = [key for key, _ in _leaves(config_snapshot(config), lists=False)]
    sources = {key: re.sub(r":\d+$", "", origins.get(key, "default")) for key in leaves}
    return LoadedConfig(config, sources, file)


def config_snapshot(config: Config) -> dict[str, Any]:
    """The whole config as JSON values, for manifests; secrets can't be in it, the loader refuses them."""
    return config.model_dump(mode="json")


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A checked copy of a config with ``dotted.key=value`` overrides.

    Raises:
        R2VError: naming each override that is not one, or whose key or value the schema refuses.
    """
    data = config_snapshot(config)
    problems = [problem for text in overrides for problem in _override(data, {}, text)]
    if problems:
        raise R2VError("\n".join(problems))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        wrong = explain(error, schema_keys(Config))
        raise R2VError("\n".join(f"{key} (override): {what}" for key, what in wrong.items())) from None


def section(config: Config, dotted: str) -> Any:
    """The JSON value of one key or section, e.g. ``section(config, "training.bc")``; for fingerprints.

    Raises:
        R2VError: for an unknown key, with the nearest known one.
    """
    model: BaseModel = config
    parts = dotted.split(".")
    while parts and isinstance(below := getattr(model, parts[0], None), BaseModel):
        model = below
        del parts[0]
    value: Any = model.model_dump(mode="json")
    for part in parts:
        if not isinstance(value, dict) or part not in value:
            raise R2VError(f"Config key '{dotted}': {unknown_key(dotted, schema_keys(Config))}")
        value = value[part]
    return value


def _find(path: Path, named: str, project: Path) -> Path:
    for candidate in (path, path.parent / f"{path.name}.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    near = next((parent for parent in path.parents if parent.is_dir()), project)
    near = project / "configs" if near == project and (project / "configs").is_dir() else near
    known = (
        {_shown(p.resolve(), project) for p in near.glob("**/*.yaml" if near.is_relative_to(project) else "*.yaml")}
        if near != project
        else set()
    )
    raise R2VError(f"No config file '{named}'.{nearest(_shown(path, project), known)}")


def _chain(file: Path, project: Path, above: tuple[Path, ...]) -> list[YamlFile]:
    """The file preceded by everything it inherits from, weakest first, each file once."""
    name = _shown(file, project)
    if file in above:
        cycle = " → ".join(_shown(p, project) for p in (*above[above.index(file) :], file))
        raise R2VError(f"{name}: 'defaults' go in a circle: {cycle}; remove one of them")
    layer = read_yaml(file, name)
    parents = layer.data.pop("defaults", [])
    line = layer.lines.pop("defaults", 0)
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise R2VError(f"{name}:{line}: defaults = {shown(parents)}: expected a list of files, e.g. [../base]")
    chain: dict[Path, YamlFile] = {}
    for parent in parents:
        try:
            found = _find(file.parent / parent, parent, project)
        except R2VError as error:
            raise R2VError(f"{name}:{line}: defaults: {error}") from None
        for item in _chain(found, project, (*above, file)):
            chain.setdefault(item.path, item)
    return [*chain.values(), layer]


def _merge(data: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value


def _drop_empty_sections(data: dict[str, Any]) -> None:
    """A section header with nothing below it (all commented out) says nothing."""
    sections = [key for key, node in schema_keys(Config).items() if node.get("type") == "object"]
    for dotted in sections:
        parent, _, name = dotted.rpartition(".")
        holder: Any = data
        for part in parent.split(".") if parent else ():
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and name in holder and holder[name] is None:
            del holder[name]


def _override(data: dict[str, Any], origins: dict[str, str], text: str) -> list[str]:
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not _OVERRIDE_KEY.fullmatch(key):
        return [f"override '{key}': expected dotted.key=value, e.g. training.bc.max_steps=100"]
    try:
        value = parse_value(raw)
    except yaml.YAMLError as error:
        return [f"{key} (override): not a YAML value ({str(error).splitlines()[0]}); put it in quotes"]
    layer: Any = value
    for part in reversed(key.split(".")):
        layer = {part: layer}
    _merge(data, layer)
    if isinstance(value, dict):
        origins |= {leaf: "override" for leaf, _ in _leaves(value, key, lists=False)}
    else:
        for old in [old for old in origins if old.startswith((f"{key}.", f"{key}["))]:
            del origins[old]
        origins[key] = "override"
    return []


def _refuse_secrets(data: dict[str, Any], origins: dict[str, str]) -> list[str]:
    problems = []
    for key, value in _leaves(data, sections=True):
        names = [key.rpartition(".")[2], *re.findall(r"oc\.env:\s*(\w+)", value if isinstance(value, str) else "")]
        if any(is_secret(name) for name in names):
            problems.append(
                f"{key} ({_origin(key, origins)}): a secret must not be in a config, as manifests and logs would show "
                "it; remove the key and set an environment variable (e.g. OPENAI_API_KEY, HF_TOKEN) instead"
            )
    return problems


def _interpolate(data: dict[str, Any], origins: dict[str, str]) -> tuple[set[str], list[str]]:
    """Resolve ``${…}`` in place; the keys where that gave text, and what can't be resolved."""
    resolved, problems = set(), []
    texts = [(key, value) for key, value in _leaves(data) if isinstance(value, str) and "${" in value]
    if not texts:
        return set(), []
    values: dict[str, Any] = {}
    for key, text in texts:
        try:
            OmegaConf.create([text])  # its grammar; a bad one must not keep the others from being looked at
        except OmegaConfBaseException as error:
            problems.append(f"{key} = {shown(text)} ({_origin(key, origins)}): {str(error).splitlines()[0]}")
            _put(data, key, None)
    whole = OmegaConf.create(data)
    for key, text in [(key, text) for key, text in texts if not any(p.startswith(f"{key} = ") for p in problems)]:
        try:
            values[key] = OmegaConf.select(whole, key, throw_on_missing=True)
            resolved.add(key)
        except OmegaConfBaseException as error:
            problems.append(f"{key} = {shown(text)} ({_origin(key, origins)}): {unresolved(error)}")
    for key, value in values.items():
        _put(data, key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    return resolved, problems


def unresolved(error: OmegaConfBaseException) -> str:
    """Why a value with ``${…}`` can't be resolved, and what to do where an environment variable is missing."""
    reason = str(error).splitlines()[0]
    missing = re.search(r"[Ee]nvironment variable '(\w+)' not found", reason)
    if missing is None:
        return reason
    return f"the environment variable {missing[1]} is not set; set it, or write ${{oc.env:{missing[1]},…}}"


def _check(
    model: type[BaseModel], data: dict[str, Any], interpolated: set[str], prefix: str
) -> tuple[BaseModel | None, dict[str, str]]:
    """Validate strictly (no number from text, no 1 from true); text from an interpolation may be a number."""
    keys = schema_keys(model, prefix)
    for retry in (True, False):
        part: Any = data
        for name in prefix.split(".") if prefix else ():
            part = part[name]
        try:
            return model.model_validate_json(json.dumps(part), strict=True), {}
        except ValidationError as error:
            problems = explain(error, keys, prefix)
            again = set(problems) & interpolated if retry else set()
            if not again:
                break
            for key, value in list(_leaves(data)):
                if key in again and isinstance(value, str):
                    with suppress(yaml.YAMLError):
                        _put(data, key, parse_value(value))
    return None, problems


def _leaves(data: Any, dotted: str = "", sections: bool = False, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything below ``data`` that is not a non-empty mapping or list.

    With ``sections`` the non-empty mappings too; without ``lists`` a list is one value.
    """
    if isinstance(data, dict) and data:
        if sections and dotted:
            yield dotted, data
        for key, value in data.items():
            yield from _leaves(value, f"{dotted}.{key}" if dotted else key, sections, lists)
    elif isinstance(data, list) and data and lists:
        for i, item in enumerate(data):
            yield from _leaves(item, f"{dotted}[{i}]", sections, lists)
    else:
        yield dotted, data


def _put(data: Any, dotted: str, value: Any) -> None:
    *path, last = [int(i) if i else name for name, i in re.findall(r"([^.\[\]]+)|\[(\d+)\]", dotted)]
    for part in path:
        data = data[part]
    data[last] = value


def _odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _origin(key: str, origins: dict[str, str]) -> str:
    """Where a key was set: itself, else the nearest section above it, else a key below it, else the schema."""
    above = key
    while above:
        if above in origins:
            return origins[above]
        above = above[: max(above.rfind("."), above.rfind("["), 0)]
    return next((where for other, where in origins.items() if other.startswith(f"{key}.")), "default")


def _shown(path: Path, project: Path) -> str:
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else str(path)


def _error(file: Path, project: Path, problems: list[str]) -> R2VError:
    if len(problems) == 1:
        return R2VError(problems[0])
    return R2VError("\n".join([f"{_shown(file, project)}: {len(problems)} problems", *(f"  {p}" for p in problems)]))
