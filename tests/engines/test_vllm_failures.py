"""Servers that die, are slow, or can't do what is needed: one clear line each, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.engines import open_engine
from r2v_core.engines.vllm import WHERE
from r2v_core.engines.vllm.client import at_once
from r2v_core.engines.vllm.server import server_environment
from r2v_core.errors import R2VError, TransientError
from tests.engines.vllm_servers import random_adapter, stub_environment

Open = Callable[..., Any]
PROMPT = "<|im_start|>user\nGo.<|im_end|>\n"


@pytest.fixture
def start(tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the engine in an environment whose server behaves as named."""

    def opened(behaviour: str, adapter: Path | None = None, **options: Any) -> Any:
        monkeypatch.setenv(WHERE, str(stub_environment(tmp_path / behaviour, behaviour)))
        slm = tiny_slm.model_copy(update={"engine": "vllm", "engine_options": options})
        return open_engine(slm, model_cache, adapter, tmp_path / "logs")

    return opened


def servers() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children(recursive=True) if "stub_server.py" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize(
    ("behaviour", "options", "kind", "said"),
    [
        ("dies", {}, R2VError, "did not start (ValueError: LoRA rank 7 is not served); its log: "),
        ("sleeps", {"start_s": 1.0}, TransientError, "not ready after 1 s (slm.engine_options.start_s); its log: "),
        ("silent", {"timeout_s": 0.5}, TransientError, "no answer within 0.5 s (slm.engine_options.timeout_s)"),
        ("few", {}, R2VError, "start vLLM with --max-logprobs=20"),
        ("scaled", {}, R2VError, "start vLLM with --logprobs-mode=raw_logprobs"),
        ("none", {}, R2VError, "returns no log-probabilities"),
    ],
)
def test_a_server_that_will_not_do_is_one_line_and_is_gone(
    start: Open, behaviour: str, options: dict[str, Any], kind: type[R2VError], said: str
) -> None:
    with pytest.raises(R2VError) as refused:
        start(behaviour, **options)
    assert said in str(refused.value) and "\n" not in str(refused.value) and type(refused.value) is kind
    assert servers() == []


def test_a_server_ends_with_its_engine_and_its_log_stays(start: Open, tmp_path: Path) -> None:
    engine = start("well", arguments=["--swap-space=1"])
    assert len(servers()) == 1
    (row,) = engine.sample([PROMPT], [1], k=3, temperature=1.0, batch_size=1)
    assert len(row) == 3 and row[0].n_tokens == 1 and row[0].logprob == -2.0
    del engine
    assert servers() == []
    command = (tmp_path / "logs" / "vllm.log").read_text()
    assert "--logprobs-mode=raw_logprobs" in command and "--host=127.0.0.1" in command and "--swap-space=1" in command


def test_a_server_that_dies_is_named_with_its_reason(start: Open) -> None:
    engine = start("mortal")
    with pytest.raises(TransientError) as ended:
        engine.sample([PROMPT] * 6, list(range(6)), k=1, temperature=1.0, batch_size=6)
    assert "the vLLM server ended (MemoryError: no room for the cache); its log: " in str(ended.value)
    assert "run the same command again to continue" in str(ended.value)


def test_a_server_ends_when_its_stage_is_killed(tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path) -> None:
    slm = tiny_slm.model_copy(update={"engine": "vllm"})
    code = (
        "import sys, time; from pathlib import Path; from r2v_core.engines import open_engine\n"
        "from r2v_core.config.schema import SLMConfig\n"
        "engine = open_engine(SLMConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "print('open', flush=True); time.sleep(600)"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", code, slm.model_dump_json(), str(model_cache)],
        env={**os.environ, WHERE: str(stub_environment(tmp_path / "stub", "well"))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout is not None and stage.stdout.readline() == "open\n"
    (server,) = servers()
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    server.wait(30)


def test_an_adapter_that_vllm_does_not_serve_is_refused_before_anything_starts(
    start: Open, tmp_path: Path, tiny_slm: SLMConfig, model_cache: Path
) -> None:
    wide = random_adapter(tiny_slm, model_cache, tmp_path / "wide", rank=600)
    with pytest.raises(R2VError, match=r"its rank is 600, and vLLM serves up to 512; set slm.engine_options.adapter"):
        start("well", wide)
    whole = random_adapter(tiny_slm, model_cache, tmp_path / "whole", modules_to_save=["lm_head"])
    with pytest.raises(R2VError, match="it has modules_to_save"):
        start("few", whole)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("where", "options", "said"),
    [
        ("/nowhere", {}, "there is no /nowhere/bin/python (R2V_VLLM)"),
        ("http://127.0.0.1:9", {}, "http://127.0.0.1:9: the connection failed"),
        (None, {"served_as": "x"}, "is for a server at an address; set R2V_VLLM"),
    ],
)
def test_where_there_is_no_server(
    tmp_path: Path,
    tiny_slm: SLMConfig,
    model_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str | None,
    options: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setenv(WHERE, where or str(stub_environment(tmp_path / "stub", "well")))
    slm = tiny_slm.model_copy(update={"engine": "vllm", "engine_options": options})
    with pytest.raises(R2VError) as refused:
        open_engine(slm, model_cache)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_server_gets_no_launcher_and_no_keys_and_its_own_gpu() -> None:
    given = {"RANK": "1", "LOCAL_RANK": "1", "MASTER_PORT": "2", "OPENAI_API_KEY": "s", "CUDA_VISIBLE_DEVICES": "4,6"}
    kept = server_environment({**given, "HF_HOME": "h"})
    assert not {"RANK", "LOCAL_RANK", "MASTER_PORT", "OPENAI_API_KEY"} & kept.keys()
    assert kept["CUDA_VISIBLE_DEVICES"] == "6" and kept["HF_HOME"] == "h"


def test_many_calls_are_under_way_at_once_and_come_back_in_order() -> None:
    running: list[int] = []
    most = []

    def call(i: int) -> int:
        running.append(i)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(i)
        return i * i

    assert at_once(call, range(12), 4) == [i * i for i in range(12)]
    assert max(most) == 4
    with pytest.raises(ZeroDivisionError):
        at_once(lambda i: 1 // i, [1, 0, 1], 2)
