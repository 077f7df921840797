"""Which provider and model a partition's teacher name stands for: a built-in table and ``configs/teachers.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core.config.explain import explain, schema_keys, shown
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError, nearest

Provider = Literal["env", "local", "trained", "openai", "anthropic", "google", "deepseek", "openai_compatible"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
IN_PROCESS: frozenset[Provider] = frozenset({"local", "trained"})
"""Providers whose model is loaded by whoever asks it."""
FILE = Path("configs/teachers.yaml")
_NAME = re.compile(r"[\w.+/-]+")


class TeacherEntry(BaseModel):
    """One teacher: who answers, and where."""

    model_config = ConfigDict(extra="forbid")
    provider: Provider = Field(description="whose interface it is asked through")
    model: str = Field(
        min_length=1, description="the provider's name of the model; for local and trained a model as in slm.model"
    )
    base_url: str | None = Field(
        None, description="where an API answers; ${oc.env:VARIABLE,default} reads the environment; null: the provider's"
    )
    key_env: str | None = Field(
        None, description="environment variable that holds the API key; null: the provider's usual one"
    )


def _entry(provider: Provider, model: str) -> TeacherEntry:
    return TeacherEntry(provider=provider, model=model, base_url=None, key_env=None)


TEACHERS: dict[str, TeacherEntry] = {
    "expert": _entry("env", "expert"),
    "smollm2": _entry("local", "smollm2-135m-instruct"),
    "smollm2-taught": _entry("trained", "smollm2-135m-instruct"),
    "gpt-4o": _entry("openai", "gpt-4o"),
    "gpt-4o-mini": _entry("openai", "gpt-4o-mini"),
    "gpt-4.1": _entry("openai", "gpt-4.1"),
    "claude-sonnet-4-6": _entry("anthropic", "claude-sonnet-4-6"),
    "claude-haiku-4-5": _entry("anthropic", "claude-haiku-4-5"),
    "gemini-2.5-pro": _entry("google", "gemini-2.5-pro"),
    "gemini-2.5-flash": _entry("google", "gemini-2.5-flash"),
    "deepseek-chat": _entry("deepseek", "deepseek-chat"),
}
"""Teachers that need no entry in ``configs/teachers.yaml``."""


def known_teachers(file: Path) -> dict[str, TeacherEntry]:
    """The built-in teachers and those of a ``teachers.yaml`` (which need not exist).

    Raises:
        R2VError: naming file, line, entry, value and what is expected, one line for each problem.
    """
    if not file.is_file():
        return TEACHERS
    yaml = read_yaml(file, dots=True)
    entries = yaml.data.get("teachers") or {}
    if set(yaml.data) - {"teachers"} or not isinstance(entries, dict):
        raise R2VError(
            f"{file}: expected one key, 'teachers', with entries such as "
            "my-qwen: {provider: openai_compatible, model: qwen2.5-7b, base_url: 'http://localhost:8000/v1'}"
        )
    found, problems = dict(TEACHERS), []
    for name, given in entries.items():
        entry, wrong = _check(name, given)
        problems += [f"{file}:{yaml.lines.get(f'teachers.{name}', 1)}: teacher '{name}': {what}" for what in wrong]
        if entry is not None:
            found[name] = entry
    if problems:
        raise R2VError("\n".join(problems))
    return found


def _check(name: str, given: object) -> tuple[TeacherEntry | None, list[str]]:
    if name in TEACHERS:
        return None, ["the name is built in; choose another one"]
    if not _NAME.fullmatch(name):
        return None, ["a name holds letters, digits and . _ + / - only, as it is part of partition keys"]
    if not isinstance(given, dict):
        return None, [f"expected {{provider: …, model: …}}, not {shown(given)}"]
    try:
        entry = TeacherEntry.model_validate(given)
    except ValidationError as error:
        return None, [f"{key}: {what}" for key, what in explain(error, schema_keys(TeacherEntry)).items()]
    if entry.provider == "env":
        return None, ["provider: env is the benchmark's own expert, which is built in as 'expert'"]
    if entry.provider == "openai_compatible" and not entry.base_url:
        return None, ["base_url: missing; an openai_compatible server needs one, e.g. http://localhost:8000/v1"]
    return entry, []


def find_teacher(name: str, project: Path) -> TeacherEntry:
    """What a partition's teacher name stands for in a project.

    Raises:
        R2VError: for an unknown name, with the nearest known one, or a broken ``configs/teachers.yaml``.
    """
    known = known_teachers(project / FILE)
    if name not in known:
        raise R2VError(f"Unknown teacher '{name}'.{nearest(name, known)} Own ones are added in {FILE}")
    return known[name]
