"""The commands beside the published numbers: none can be run without a GPU, all of them have to mean something."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest

from r2v_core.agent.features import FEATURES
from r2v_core.partition import Partition
from r2v_core.stages.ablation import ABLATIONS
from r2v_core.stages.experiments import partition_config
from r2v_core.stages.forecast import planned_tasks, work_of
from r2v_core.stages.table import pipeline
from tests.docs.documented import COMMANDS, ROOT

HERE = [shlex.split(command) for page, command in COMMANDS if page == "docs/results/published.md"]


def options(words: list[str], name: str) -> list[str]:
    return [value for option, value in pairwise(words) if option == name]


@pytest.mark.parametrize("words", HERE, ids=" ".join)
def test_a_command_names_a_partition_an_ablation_and_keys_that_exist(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2V_CONFIG", raising=False)
    (key,) = options(words, "--partition")
    partition = Partition.parse(key)
    loaded = partition_config(partition, None, options(words, "--overrides"), ROOT)
    assert loaded.config.slm.engine == "vllm" and set(loaded.config.training.router.features) <= set(FEATURES)
    assert loaded.config.benchmark.options.get("plus", False) == (partition.benchmark == "humaneval")
    tasks = planned_tasks(loaded.config)
    assert all(work_of(stage.name, loaded.config, tasks) is not None for stage in pipeline(loaded.config))
    assert words[:2] == ["r2v", "demo"] or (words[1:3] == ["-m", "r2v_core.stages.ablation"] and words[3] in ABLATIONS)


def test_each_published_model_has_its_command_on_both_benchmarks() -> None:
    first = {options(words, "--partition")[0] for words in HERE}
    models = ("qwen2.5-7b", "qwen2.5-14b", "llama-3.1-8b", "gemma-7b")
    assert {f"{of}@{model}|1" for of in ("textworld:expert", "humaneval:gpt-4o") for model in models} <= first


def test_results_that_differ_in_the_router_alone_go_to_folders_of_their_own() -> None:
    folders = [word for words in HERE for word in words if word.startswith("paths.results=")]
    assert len(folders) == len(set(folders)) >= 7
    for words in HERE:
        keys = [word for word in options(words, "--overrides") if word.startswith("training.router.")]
        assert bool(keys) == any(word.startswith("paths.results=") for word in words)
