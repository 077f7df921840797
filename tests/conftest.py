"""Fixtures that several topics share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from r2v_core.benchmarks.swebench.build import build, read_table
from r2v_core.config.schema import SLMConfig

# a loaded machine is slow, and nothing here is about speed
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# thread pools of two workers on two cores fight; and rounding, with it digests, depends on how many threads there are
os.environ.setdefault("OMP_NUM_THREADS", "1")

# tables are as wide as the terminal, and a test has none
os.environ["COLUMNS"] = "200"

# in a shell's background SIGINT is ignored; Dagster makes SIGTERM do the same, and what a test starts inherits both
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup leaves it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONGEST = (
    "tests/assets/test_pipeline",
    "tests/engines/test_vllm",
    *("tests/slurm/", "tests/assets/", "tests/training/", "tests/stages/", "tests/runs/test_old_runs"),
)


MARKED = {
    "slurm": ("tests/slurm/",),
    "browser": (
        *("tests/results/test_report_", "tests/benchmarks/test_miniwob_", "tests/benchmarks/test_webarena_env"),
        *("tests/benchmarks/test_side_by_side", "tests/stages/test_webarena"),
    ),
    "slow": (
        *("tests/assets/", "tests/training/", "tests/stages/", "tests/extension/", "tests/sandbox/", "tests/teachers/"),
        *("tests/benchmarks/", "tests/results/test_compare", "tests/results/test_stages", "tests/runs/"),
        *("tests/results/test_ablations", "tests/agent/", "tests/models/", "tests/router/"),
        "tests/serving/",
        "tests/registry/test_robustness",
        "tests/engines/test_vllm",
    ),
}
"""Marker → where its tests are: what ``make test-fast`` leaves out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by where they are. Files that take minutes come first and quick ones last: workers end together."""
    for item in items:
        for marker, places in MARKED.items():
            if item.nodeid.startswith(places):
                item.add_marker(marker)
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """All modules stay until the end: the garbage collector needn't go through them each time that it runs."""
    gc.collect()
    gc.freeze()


def _place(item: pytest.Item) -> int:
    found = (i for i, path in enumerate(LONGEST) if item.nodeid.startswith(path))
    quick = not any(mark.name in MARKED for mark in item.iter_markers())
    return next(found, len(LONGEST) + quick)


def folder_of_all(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of a session share."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of converted models and built games for all workers: the project's own where there is one."""
    cache = Path(__file__).parents[1] / "data" / "cache"
    if not cache.is_dir():
        cache = folder_of_all(tmp_path_factory) / "cache"
        cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def real_slm() -> SLMConfig:
    """The default small model."""
    return SLMConfig(model="smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tiny_slm(tmp_path_factory: pytest.TempPathFactory, model_cache: Path, real_slm: SLMConfig) -> SLMConfig:
    """A randomly initialised two-layer Llama with the real tokenizer, in float32: the real code, in seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from r2v_core.models.hub import load_tokenizer

    tokenizer = load_tokenizer(real_slm, model_cache)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    path = tmp_path_factory.mktemp("tiny") / "llama"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return SLMConfig(model=str(path), dtype="float32")


SWEBENCH = ("parse", "sqlparse", "texttable", "titlecase")
"""Packages whose instances the tests are about: four repositories, quick tests."""


@pytest.fixture(scope="session")
def swebench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SWE-bench instances, built once for all workers from PyPI; archives that the project has already serve, too."""
    folder = folder_of_all(tmp_path_factory) / "swebench"
    root = Path(__file__).parents[1]
    with FileLock(f"{folder}.lock"):
        if not (folder / "instances.jsonl").is_file():
            if (root / "data/swebench/sdists").is_dir():
                shutil.copytree(root / "data/swebench/sdists", folder / "sdists", dirs_exist_ok=True)
            recipes = read_table(root / "configs/swebench/instances.yaml")
            chosen = [recipe for recipe in recipes if recipe.package in SWEBENCH and recipe.after != "1.20.1"]
            assert all(one.gold for one in build(chosen, folder))
    return folder
