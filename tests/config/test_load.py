"""Merging, interpolation, and messages that say what to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.config import Config, config_snapshot, section
from r2v_core.config.basefile import base_yaml
from r2v_core.config.explain import schema_keys
from r2v_core.config.secrets import is_secret
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError
from r2v_core.perturbations import FAMILIES, probabilities
from r2v_core.stages.experiments import load_config

ROOT = Path(__file__).parents[2]


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def fail(root: Path, text: str, *overrides: str) -> str:
    put(root, c=text)
    with pytest.raises(R2VError) as caught:
        load_config("c.yaml", overrides, project=root)
    return str(caught.value)


# -- the shipped configs


def test_base_yaml_has_every_key_with_the_schema_default() -> None:
    file = read_yaml(ROOT / "configs/base.yaml")
    assert file.data == Config().model_dump(mode="json")
    assert set(file.lines) == set(schema_keys(Config))


def test_base_yaml_is_what_the_schema_makes() -> None:
    written = (ROOT / "configs/base.yaml").read_text(encoding="utf-8")
    assert written == base_yaml(), "configs/base.yaml differs from the schema; run 'make base-config'"


def test_base_yaml_says_what_every_key_means() -> None:
    text = " ".join(line.strip().removeprefix("# ") for line in base_yaml().splitlines())
    meanings = {" ".join(node["description"].split()) for node in schema_keys(Config).values() if "description" in node}
    unsaid = {meaning for meaning in meanings if meaning.removesuffix(".")[1:] not in text}
    assert not unsaid


@pytest.mark.parametrize("path", ["base", "mrp", "textworld/clean", "textworld/noisy.yaml"])
def test_shipped_configs_are_valid(path: str) -> None:
    loaded = load_config(f"configs/{path}", project=ROOT)
    assert loaded.path.is_file()
    assert set(loaded.sources.values()) <= {
        "configs/base.yaml", "configs/mrp.yaml", "configs/textworld/clean.yaml", "configs/textworld/noisy.yaml",
        "default",
    }  # fmt: skip
    assert {key for key, source in loaded.sources.items() if source == "default"} <= {
        f"benchmark.options.{name}" for name in loaded.config.benchmark.options
    }


def _probabilities(path: str) -> dict[str, float]:
    config = load_config(path, project=ROOT).config
    return {
        f"{family}.{operator}": p
        for family in FAMILIES
        for operator, p in probabilities(section(config, f"perturbations.{family}")).items()
    }


LATER = ("partial", "result_shuffle", "numeric_drift", "plausible_wrong", "indirect", "encoded", "exfiltration")
"""Operators that the shipped conditions leave out: they came after the numbers that were made with those."""


def test_conditions_are_what_their_names_say() -> None:
    clean, noisy = (_probabilities(f"configs/textworld/{condition}") for condition in ("clean", "noisy"))
    assert set(clean.values()) == {0.0}
    assert {name.split(".")[1] for name, p in noisy.items() if p == 0} == set(LATER)
    assert all(p <= 0.1 for p in noisy.values())


def test_mrp_keeps_its_files_apart() -> None:
    paths = load_config("configs/mrp.yaml", project=ROOT).config.paths
    assert paths.model_dump() == {
        "data": "data/mrp", "outputs": "outputs/mrp", "results": "results/mrp", "cache": "data/cache"
    }  # fmt: skip


# -- merging


def test_later_layers_win_and_sources_say_who(tmp_path: Path) -> None:
    put(
        tmp_path,
        base="name: base\nslm: {history_steps: 1, max_prompt_tokens: 100}\ntraining: {bc: {batch_size: 2}}",
        sub__noisy="defaults: [../base]\ntraining:\n  bc:\n    max_steps: 5\n    learning_rate: 1e-5\n",
        c="defaults: sub/noisy\nname: c\nbenchmark: {splits: {test: 3}}\ntraining:\n",
    )
    loaded = load_config("c", ["training.bc.max_steps=7", "evaluation.methods=[r2v, slm_only]"], project=tmp_path)
    config = loaded.config
    assert (config.name, config.slm.history_steps, config.slm.max_prompt_tokens) == ("c", 1, 100)
    assert (config.training.bc.max_steps, config.training.bc.batch_size) == (7, 2)
    assert config.training.bc.learning_rate == 1e-5
    assert config.benchmark.splits == {"train": 24, "router": 8, "validation": 8, "test": 3, "teacher": 0}
    assert config.evaluation.methods == ["r2v", "slm_only"]
    expected = {
        "name": "c.yaml",
        "slm.history_steps": "base.yaml",
        "training.bc.learning_rate": "sub/noisy.yaml",
        "training.bc.max_steps": "override",
        "training.bc.weight_decay": "default",
        "benchmark.splits.test": "c.yaml",
        "benchmark.splits.train": "default",
        "evaluation.methods": "override",
    }
    assert {key: loaded.sources[key] for key in expected} == expected


def test_a_shared_base_does_not_undo_its_heirs(tmp_path: Path) -> None:
    put(
        tmp_path,
        base="name: base\nslm: {history_steps: 1}",
        a="defaults: [base]\nname: a",
        b="defaults: [base]\nslm: {}",
    )
    put(tmp_path, c="defaults: [a, b]")
    assert load_config("c", project=tmp_path).config.name == "a"


def test_mapping_overrides_merge_and_lists_are_replaced(tmp_path: Path) -> None:
    put(tmp_path, c="training: {bc: {batch_size: 2}, router: {hidden: [9, 9, 9]}}")
    overrides = ["training.bc={max_steps: 3}", "training.router.hidden=[4]", "name='a b'"]
    loaded = load_config("c", overrides, project=tmp_path)
    assert (loaded.config.training.bc.batch_size, loaded.config.training.bc.max_steps) == (2, 3)
    assert loaded.config.training.router.hidden == [4]
    assert loaded.config.name == "a b"
    assert loaded.sources["training.bc.max_steps"] == "override"
    assert loaded.sources["training.bc.batch_size"] == "c.yaml"


def test_interpolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2V_TEST_STEPS", "12")
    text = (
        "paths:\n  data: ${oc.env:R2V_TEST_NONE,scratch}/x\n  cache: ${paths.data}/cache\n"
        "benchmark: {max_steps: '${oc.env:R2V_TEST_STEPS}'}\n"
        "collection: {explore_prob: '${oc.env:R2V_TEST_NONE,0.5}'}\n"
    )
    config = load_config(put(tmp_path, c=text) / "c", project=tmp_path).config
    assert (config.paths.data, config.paths.cache) == ("scratch/x", "scratch/x/cache")
    assert (config.benchmark.max_steps, config.collection.explore_prob) == (12, 0.5)


def test_unset_variables_are_all_named(tmp_path: Path) -> None:
    message = fail(tmp_path, "paths: {data: '${oc.env:R2V_NO_A}', cache: '${oc.env:R2V_NO_B}', outputs: '${oc.env:'}")
    for words in ("paths.data", "R2V_NO_A", "R2V_NO_B", "paths.outputs", "c.yaml:1"):
        assert words in message


# -- messages

PROBLEMS = [
    ("training:\n  bc:\n    learning_rte: 1", ["training.bc.learning_rte", "c.yaml:3", "'training.bc.learning_rate'"]),
    ("agent:\n  max_prompt_tokens: 9", ["agent.max_prompt_tokens", "c.yaml:2", "'slm.max_prompt_tokens'"]),
    ("slm:\n  rank_by: verifier", ["slm.rank_by", "'candidates.rank_by'"]),
    ("trainin: {}", ["trainin (c.yaml:1)", "'training'"]),
    ("collection: {explore_prob: 1.5}", ["collection.explore_prob", "1.5", "≥ 0 and ≤ 1"]),
    ("slm: {dtype: fp16}", ["slm.dtype", "'fp16'", "one of auto, bfloat16, float16, float32"]),
    ("benchmark: {max_steps: '20'}", ["benchmark.max_steps", "'20'", "whole number ≥ 1"]),
    ("benchmark: {max_steps: true}", ["benchmark.max_steps", "true", "whole number"]),
    ("benchmark: {max_steps: 2.5}", ["benchmark.max_steps", "2.5", "whole number"]),
    ("agent: {self_correction: 1}", ["agent.self_correction", "true or false"]),
    ("training: {bc: {learning_rate: .inf}}", ["training.bc.learning_rate", "finite"]),
    ("training: {router: {dropout: .nan}}", ["training.router.dropout", "nan"]),
    ("training: {router: {hidden: [128, 0]}}", ["training.router.hidden[1]", "0 is not possible", "≥ 1"]),
    ("slm: 3", ["slm (c.yaml:1)", "a section with the keys", "model"]),
    ("benchmark: {splits: {test: 0}}", ["benchmark.splits", "test is 0; every split but teacher needs 1"]),
    ("benchmark: {splits: {test: -1}}", ["benchmark.splits.test", "-1"]),
    ("benchmark: {splits: {tset: 3}}", ["benchmark.splits.tset", "'benchmark.splits.test'"]),
    ("benchmark: {name: textwrld}", ["benchmark.name", "textwrld", "'textworld'"]),
    ("benchmark: {name: [a]}", ["benchmark.name", "text"]),
    ("benchmark: {options: {foo: 1}}", ["benchmark.options.foo (c.yaml:1)", "no such key"]),
    ("benchmark: {options: {mix: [{family: custom, roms: 3}]}}", ["benchmark.options.mix[0].custom.roms", "rooms'"]),
    ("benchmark: {options: {mix: []}}", ["benchmark.options.mix", "[] is not possible", "at least 1"]),
    ("benchmark: {options: {goals: [foo]}}", ["benchmark.options.goals[0]", "'foo'", "one of detailed, brief"]),
    ("- a\n- b", ["c.yaml", "a list"]),
    ("name: a\nname: b", ["c.yaml:2:1", "'name'", "line 1"]),
    ("training:\n  bc: {max_steps: 1, max_steps: 2}", ["c.yaml:2:", "max_steps"]),
    ("name: [a\nslm: b", ["c.yaml:2:", "malformed"]),
    ("name: a\n\tslm: b", ["c.yaml:2:1", "malformed"]),
    ("training.bc: {}", ["c.yaml:1:1", "nested"]),
    ("1: a", ["c.yaml:1:1", "'1'", "quotes"]),
    ("a: &x [*x]", ["c.yaml", "malformed"]),
    ("defaults: 3", ["c.yaml:1", "defaults", "[../base]"]),
    ("name: x\ndefaults: [bas]", ["c.yaml:2", "bas"]),
]


@pytest.mark.parametrize(("text", "words"), PROBLEMS)
def test_one_clear_line_for_each_mistake(tmp_path: Path, text: str, words: list[str]) -> None:
    message = fail(tmp_path, text)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name", ["'name'", "dotted.key=value"]),
        ("a..b=1", ["'a..b'", "dotted.key=value"]),
        ("=1", ["dotted.key=value"]),
        ("name=[a", ["name (override)", "YAML"]),
        ("slm=null", ["slm (override)", "null", "section"]),
        ("slm.dtype=", ["slm.dtype (override)", "null", "one of"]),
        ("agent.max_steps=3", ["agent.max_steps (override)", "'benchmark.max_steps'"]),
        ("benchmark.name.x=3", ["benchmark.name (override)", "text"]),
        ("training.verifier.max_steps=0", ["training.verifier.max_steps (override)", "0 is not possible", "≥ 1"]),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, words: list[str]) -> None:
    message = fail(tmp_path, "name: c", override)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    text = "slm:\n  dtype: x\nagent:\n  paralel: 3\nbenchmark:\n  options: {foo: 1}\n"
    head, *lines = fail(tmp_path, text, "candidates.k=1").splitlines()
    assert head == "c.yaml: 4 problems"
    assert {line.split()[0] for line in lines} == {
        "slm.dtype",
        "candidates.k",
        "agent.paralel",
        "benchmark.options.foo",
    }
    assert "c.yaml:2" in "".join(lines)
    assert "c.yaml:4" in "".join(lines)


def test_the_file_at_fault_is_named_not_the_one_that_inherits(tmp_path: Path) -> None:
    put(tmp_path, deep__base="name: base\nslm:\n  dtype: x")
    assert "deep/base.yaml:3" in fail(tmp_path, "defaults: [deep/base]\nslm: {history_steps: 1}")


def test_missing_files_and_circles(tmp_path: Path) -> None:
    put(tmp_path, configs__mrp="name: a", configs__a="defaults: [b]", configs__b="defaults: [a]")
    with pytest.raises(R2VError, match=r"'configs/mpr'.*'configs/mrp.yaml'"):
        load_config("configs/mpr", project=tmp_path)
    with pytest.raises(R2VError, match=r"circle: configs/a\.yaml → configs/b\.yaml → configs/a\.yaml"):
        load_config("configs/a", project=tmp_path)
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(R2VError, match=r"bin\.yaml: not a UTF-8"):
        load_config("bin", project=tmp_path)


# -- secrets


@pytest.mark.parametrize(
    "key",
    ["api_key", "key", "hf_token", "accessToken", "client_secret", "password", "secret_name", "api-key", "apikey"],
)
def test_secrets_are_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    message = fail(tmp_path, f"teacher:\n  options:\n    {key}: sk-12345\n")
    assert f"teacher.options.{key} (c.yaml:3)" in message
    assert "environment variable" in message
    assert "12345" not in message


def test_secrets_are_refused_from_overrides_and_through_the_environment(tmp_path: Path) -> None:
    assert "12345" not in fail(tmp_path, "name: c", "teacher.options.api_key=sk-12345")
    assert "12345" not in fail(tmp_path, "name: c", "teacher.options.api_key=[sk-12345")
    assert "environment variable" in fail(tmp_path, "name: ${oc.env:HF_TOKEN,x}")
    assert "environment variable" in fail(tmp_path, "teacher: {options: {servers: [{api_key: 1}]}}")


def test_ordinary_keys_are_no_secrets() -> None:
    assert not [key for key in schema_keys(Config) if is_secret(key.rpartition(".")[2])]
    assert not any(is_secret(name) for name in ("max_tokens", "keys", "key_color", "n_keys", "tokenizer", "monkey"))


# -- helpers


def test_section_and_snapshot(tmp_path: Path) -> None:
    config = load_config(put(tmp_path, c="name: c") / "c", project=tmp_path).config
    snapshot = config_snapshot(config)
    for key in schema_keys(Config):
        value = snapshot
        for part in key.split("."):
            value = value[part]
        assert section(config, key) == value, key
    with pytest.raises(R2VError, match=r"'training\.bcc'.*'training\.bc'"):
        section(config, "training.bcc")


def test_snapshot_loads_again_as_the_same_config() -> None:
    config = load_config("configs/mrp", project=ROOT).config
    assert Config.model_validate(config_snapshot(config)) == config


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(schema_keys(Config))), st.text(max_size=5) | st.integers() | st.none())
def test_no_override_ever_escapes_as_another_exception(key: str, value: object) -> None:
    try:
        load_config("configs/base", [f"{key}={value}"], project=ROOT)
    except R2VError as error:
        assert str(error).strip()


def test_importing_the_config_loads_nothing_heavy() -> None:
    code = (
        "import sys, r2v_core.config, r2v_core.stages.experiments as e; e.load_config('configs/mrp');"
        "print([m for m in ('torch', 'transformers', 'textworld', 'dagster', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
