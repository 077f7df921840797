"""The list of experiments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.stages.experiments import load_experiments, partition_config

ROOT = Path(__file__).parents[2]


def test_shipped_list_is_valid_and_its_configs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    listed = load_experiments()
    assert listed.seeds == list(range(1, 11))
    for name in listed.experiments:
        partition = Partition.parse(f"{name}|1")
        assert partition_config(partition, None, (), ROOT).config.benchmark.name == partition.benchmark


def test_games_for_a_teacher_go_with_a_teacher_that_is_trained_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    taught, expert = Partition.parse("textworld:smollm2-taught|1"), Partition.parse("textworld:expert|1")
    config = partition_config(taught, None, (), ROOT).config
    assert config.benchmark.splits["teacher"] >= 64 and config.training.teacher.max_steps >= 300
    with pytest.raises(R2VError, match=r"splits\.teacher is 0 \(.*\), but teacher 'smollm2-taught' is trained"):
        partition_config(taught, None, ["benchmark.splits.teacher=0"], ROOT)
    with pytest.raises(R2VError, match=r"splits\.teacher is 5 \(override\), but teacher 'expert' .*\(smollm2-taught\)"):
        partition_config(expert, None, ["benchmark.splits.teacher=5"], ROOT)
    unsaid, none = (partition_config(expert, None, said, ROOT).config for said in ([], ["benchmark.splits.teacher=0"]))
    assert unsaid == none


HUB = {
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-coder-7b": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma-7b": "google/gemma-7b-it",
}
PUBLISHED = [
    name for name in load_experiments(ROOT / "configs/experiments.yaml").experiments if name.split("@")[-1] in HUB
]


def test_the_published_size_is_there_for_four_benchmarks() -> None:
    assert {name.split(":")[0] for name in PUBLISHED} == {"textworld", "humaneval", "swebench", "webarena"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_variant_of_the_published_size_is_complete_whatever_its_benchmark_says_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    config = partition_config(Partition.parse(f"{name}|1"), None, (), ROOT).config
    assert config.slm.model == HUB[name.split("@")[1]] and config.slm.engine == "vllm"
    assert config.name == f"{name.split(':')[0]}-{name.split('@')[1]}"
    assert (config.training.lora.r, config.candidates.k, config.perturbations.seeds.test) == (64, 5, 10)
    noise = config.perturbations
    assert (noise.tool_flakiness.error, noise.partial_observability.truncate) == (0.15, 0.2)
    assert (noise.prompt_injection.encoded, noise.distractors.plausible_wrong) == (0.03, 0.1)
    assert config.paths.data == f"data/{re.sub('[:@]', '_', name)}" and config.slm.max_prompt_tokens >= 2048


GOOD = '"textworld:expert": {config: mrp.yaml}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["experiments: missing", "seeds: missing"]),
        ("seeds: [1]\nexperiments: {}", [":2", "experiments"]),
        (f"seeds: [1]\nexperiments:\n  {GOOD}\nextra: 1", [":4", "extra"]),
        (f"seeds: [1]\nexperiments:\n  {GOOD}\n  {GOOD}", [":4:3", "already given in line 3"]),
        ('seeds: [1]\nexperiments:\n  "textwrld:expert": {config: mrp.yaml}', [":3", "textwrld", "'textworld'"]),
        ('seeds: [1]\nexperiments:\n  "textworld:exprt": {config: mrp.yaml}', ["unknown teacher", "'expert'"]),
        (
            "seeds: [1]\nexperiments:\n  textworld: {config: mrp.yaml}",
            ["'textworld'", "<benchmark>:<teacher>[@<variant>]"],
        ),
        ('seeds: [1]\nexperiments:\n  "textworld:expert@": {config: mrp.yaml}', ["the name has to be"]),
        ('seeds: [1]\nexperiments:\n  "textworld:expert": {config: mpr.yaml}', ["'mpr.yaml'", "'mrp.yaml'"]),
        (f"seeds: []\nexperiments:\n  {GOOD}", [":1", "seeds"]),
        (f"seeds: [1, 2, 1]\nexperiments:\n  {GOOD}", [":1", "seeds: 1 given twice"]),
        (f"seeds: [1, -2]\nexperiments:\n  {GOOD}", ["seeds[1]", "-2", "≥ 0"]),
        (f"seeds: 3\nexperiments:\n  {GOOD}", ["seeds", "3", "a list"]),
        ('seeds: [1]\nexperiments:\n  "textworld:expert": {config: mrp.yaml, seeds: [3]}', [":3", "seeds"]),
        ('seeds: [1]\nexperiments:\n  "textworld:expert": mrp.yaml', [":3", "'mrp.yaml'"]),
        ('seeds: [1]\nexperiments:\n  "textworld:expert": {}', ["config: missing"]),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mrp.yaml").write_text("name: mrp")
    path = tmp_path / "experiments.yaml"
    path.write_text(text)
    with pytest.raises(R2VError) as caught:
        load_experiments(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def project(root: Path) -> Path:
    (root / "configs").mkdir()
    (root / "configs/base.yaml").write_text("name: base\npaths: {data: data/shared}\n")
    (root / "configs/own.yaml").write_text("defaults: [base]\nname: own\npaths: {results: results/mine}\n")
    (root / "configs/experiments.yaml").write_text(
        'seeds: [1]\nexperiments:\n  "textworld:expert": {config: base.yaml}\n'
        '  "textworld:expert@b": {config: own.yaml}\n'
    )
    return root


def test_a_partition_has_its_experiments_config_and_a_variant_folders_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    root = project(tmp_path)
    main, variant = Partition.parse("textworld:expert|1"), Partition.parse("textworld:expert@b|1")
    assert partition_config(main, None, (), root).config.paths.data == "data/shared"
    paths = partition_config(variant, None, (), root).config.paths
    assert (paths.data, paths.outputs) == ("data/textworld_expert_b", "outputs/textworld_expert_b")
    assert paths.results == "results/mine"  # its own file says so
    assert partition_config(variant, None, ["paths.data=x"], root).config.paths.data == "x"
    assert partition_config(variant, "configs/base.yaml", (), root).config.paths.data == "data/shared"
    with pytest.raises(R2VError, match=r"no experiment 'textworld:expert@c'.*--config.*Did you mean"):
        partition_config(Partition.parse("textworld:expert@c|1"), None, (), root)
    with pytest.raises(R2VError, match=r"is not a project, as it has no configs/experiments\.yaml; cd to the project"):
        partition_config(main, None, (), tmp_path / "configs")


@pytest.mark.parametrize("key", ["textworld:expert|1", "humaneval:gpt-4o@qwen2.5-coder-7b|3", "a:b/c@d|0"])
def test_keys_read_as_they_are_written(key: str) -> None:
    assert Partition.parse(key).key == key


@pytest.mark.parametrize("key", ["a:b@|1", "a:b@c@d|1", "a:b|x", "a:b|1\n", "a:b", "a:b|²"])
def test_other_forms_are_no_keys(key: str) -> None:
    with pytest.raises(R2VError, match="is not a partition key"):
        Partition.parse(key)


def test_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match=r"nothing\.yaml: no such file"):
        load_experiments(tmp_path / "nothing.yaml")
