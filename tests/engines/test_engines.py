"""What every engine promises, and that they are found by name."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r2v_core import engines
from r2v_core.agent.proposer import Proposer
from r2v_core.config.schema import CandidatesConfig, SLMConfig
from r2v_core.engines import check_engine, open_engine
from r2v_core.engines.base import Engine
from r2v_core.errors import R2VError

SCRIPT = {
    "script": [{"when": "kitchen", "say": ["take key", "take key", "take key", "go east"]}],
    "otherwise": ["look around"],
}
CHATS = [
    [{"role": "system", "content": "You play."}, {"role": "user", "content": f"You are in a {room}."}]
    for room in ("kitchen", "cellar", "long dark corridor")
]


@pytest.fixture(scope="module", params=["transformers", "scripted"])
def engine(request: pytest.FixtureRequest, tiny_slm: SLMConfig, model_cache: Path) -> Engine:
    options = SCRIPT if request.param == "scripted" else {}
    slm = tiny_slm.model_copy(update={"engine": request.param, "engine_options": options, "max_action_tokens": 5})
    return open_engine(slm, model_cache)


def sample(engine: Engine, seeds: tuple[int, ...] = (1, 2, 3), **changed: Any) -> Any:
    prompts = [engine.render(chat) for chat in CHATS]
    return engine.sample(prompts, seeds, **({"k": 4, "temperature": 1.0, "batch_size": 2} | changed))


def test_a_chat_holds_its_messages_and_has_a_length(engine: Engine) -> None:
    short, long = engine.render(CHATS[1]), engine.render(CHATS[2])
    assert "You play." in short and "cellar" in short
    assert 0 < engine.count_tokens("cellar") < engine.count_tokens(short) < engine.count_tokens(long)


def test_equal_seeds_equal_replies_in_the_order_of_the_prompts(engine: Engine) -> None:
    rows = sample(engine)
    assert [len(row) for row in rows] == [4, 4, 4]
    for batch_size in (1, 3):
        again = sample(engine, batch_size=batch_size)
        assert [[c.text for c in row] for row in again] == [[c.text for c in row] for row in rows]
    many = [sample(engine, (seed,) * 3)[0] for seed in range(8)]
    assert len({tuple(c.text for c in row) for row in many}) > 1


def test_what_is_reported_is_the_models_own_whatever_was_sampled_at(engine: Engine) -> None:
    prompts = [engine.render(chat) for chat in CHATS]
    for temperature in (0.5, 2.0):
        for row in sample(engine, temperature=temperature):
            for candidate in row:
                assert candidate.logprob <= 0 <= candidate.entropy and candidate.n_tokens >= 1
    rows = sample(engine, temperature=2.0)
    whole = [[c.n_tokens < 5 for c in row] for row in rows]  # the others were cut, so their end was never drawn
    scores = engine.score(prompts, [[c.text for c in row] for row in rows], batch_size=2)
    for row, ended, found in zip(rows, whole, scores, strict=True):
        for candidate, over, score in zip(row, ended, found, strict=True):
            assert not over or score == pytest.approx(candidate.logprob, abs=1e-3)


def test_at_temperature_zero_nothing_is_random(engine: Engine) -> None:
    rows = sample(engine, temperature=0)
    assert all(len({c.text for c in row}) == 1 for row in rows)
    assert [[c.text for c in row] for row in sample(engine, (7, 8, 9), temperature=0)] == [
        [c.text for c in row] for row in rows
    ]


def test_given_texts_are_scored_each_by_itself(engine: Engine) -> None:
    prompts = [engine.render(chat) for chat in CHATS]
    texts = [["take key", "go east"], [], ["look around"]]
    together = engine.score(prompts, texts, batch_size=8)
    alone = [
        [engine.score([p], [[text]], batch_size=1)[0][0] for text in row] for p, row in zip(prompts, texts, strict=True)
    ]
    assert [len(row) for row in together] == [2, 0, 1]
    assert all(
        a == pytest.approx(b, abs=1e-3) for x, y in zip(together, alone, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert together[0][0] != together[0][1]


def test_a_transformers_score_is_what_the_tokens_add_up_to(tiny_slm: SLMConfig, model_cache: Path) -> None:
    import torch

    from r2v_core.engines.transformers.sampler import Sampler

    sampler = Sampler.load(tiny_slm, model_cache)
    prompt = sampler.render(CHATS[0])
    before = sampler.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = [*sampler.tokenizer("go east", add_special_tokens=False)["input_ids"], sampler.tokenizer.eos_token_id]
    with torch.inference_mode():
        logp = torch.log_softmax(sampler.model(torch.tensor([before + after])).logits[0].double(), -1)
    expected = sum(logp[len(before) + i - 1, token].item() for i, token in enumerate(after))
    longer = sampler.render(CHATS[2])  # beside a longer one, so that there is padding
    (found,), _ = sampler.score([prompt, longer], [["go east"], ["open the door, then go east"]], batch_size=2)
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_script_is_a_distribution() -> None:
    engine = open_engine(SLMConfig(engine="scripted", engine_options=SCRIPT), Path())
    (row,) = engine.sample(["a kitchen"], [5], k=400, temperature=1.0, batch_size=1)
    share = sum(c.text == "take key" for c in row) / len(row)
    assert 0.65 < share < 0.85
    assert {c.text: c.logprob for c in row} == {"take key": math.log(3 / 4), "go east": math.log(1 / 4)}
    assert row[0].n_tokens == 3
    assert row[0].entropy == pytest.approx((3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4)) / 3)
    (cold,) = engine.sample(["a kitchen"], [5], k=400, temperature=0.2, batch_size=1)
    assert sum(c.text == "take key" for c in cold) > 390
    assert engine.score(["a kitchen", "else"], [["sing"], ["look around"]], batch_size=1) == [[-math.inf], [0.0]]


@pytest.mark.parametrize(
    ("slm", "said"),
    [
        ({"engine": "transformer"}, "slm.engine: unknown engine 'transformer'. Did you mean 'transformers'?"),
        ({"engine_options": {"x": 1}}, "slm.engine_options: the engine 'transformers' has no options; remove x"),
        ({"engine": "scripted", "engine_options": {"scrpt": []}}, "slm.engine_options.scrpt (engine scripted)"),
        ({"engine": "scripted", "engine_options": {"otherwise": []}}, "slm.engine_options.otherwise (engine scripted)"),
        (
            {"engine": "scripted", "engine_options": {"script": [{"when": "(", "say": ["a"]}]}},
            "not a regular expression",
        ),
    ],
)
def test_what_an_engine_does_not_take_is_refused_by_name(slm: dict[str, Any], said: str) -> None:
    with pytest.raises(R2VError) as refused:
        check_engine(SLMConfig.model_validate(slm))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_looking_at_the_options_loads_no_model_library() -> None:
    code = (
        "import sys; from r2v_core.engines import check_engine, engines; from r2v_core.config.schema import SLMConfig\n"
        "for name in engines(): check_engine(SLMConfig(engine=name))\n"
        "assert sorted(engines()) == ['scripted', 'transformers', 'vllm'], engines()\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_another_package_adds_one_as_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from r2v_core.engines import scripted

    module = SimpleNamespace(Options=scripted.Options, open_engine=lambda slm, options, cache, adapter, logs: "theirs")
    found = SimpleNamespace(name="mine", load=lambda: module)
    monkeypatch.setattr(engines, "entry_points", lambda group: [found] if group == "r2v.engines" else [])
    assert open_engine(SLMConfig(engine="mine"), Path()) == "theirs"


def test_the_proposer_reads_what_the_engine_wrote() -> None:
    engine = open_engine(SLMConfig(engine="scripted"), Path())
    proposer = Proposer(engine, None, CandidatesConfig(k=2), 1, read=lambda reply: f"<{reply}>")
    (proposal,) = proposer.propose([("a prompt of five words", 0)])
    assert [c.text for c in proposal.candidates] == ["<look>", "<look>"] and proposal.tokens_in == 5
