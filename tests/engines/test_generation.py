"""Sampling with shared prompts gives what plain, one-by-one computation gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2v_core.benchmarks.actions import code, one_line
from r2v_core.engines.transformers.generation import Samples, _candidates, decode
from r2v_core.engines.transformers.rows import Padded, Shared
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.models.prompt import render_prompt
from r2v_core.trajectory import Observation, Step

PROMPTS = [
    "You play a game.\nGoal: take the key.\nYou are in a kitchen.",
    "You play a game.\nGoal: open the door and go east, then north.\nYou are in a long corridor with a door.",
    "You play a game.\nGoal: eat.",
]


@pytest.fixture(scope="module")
def policy(tiny_slm, model_cache) -> Sampler:
    return Sampler.load(tiny_slm, model_cache)


def sample(policy: Sampler, prompts=PROMPTS, seeds=(1, 2, 3), k=5, temperature=1.0, batch_size=8):
    return policy.sample(list(prompts), list(seeds), k=k, temperature=temperature, batch_size=batch_size)


def test_same_seed_same_candidates_whatever_the_batch(policy):
    alone = [sample(policy, [p], [s])[0] for p, s in zip(PROMPTS, (1, 2, 3), strict=True)]
    for batch_size in (1, 2, 8):
        texts = [[c.text for c in row] for row in sample(policy, batch_size=batch_size)]
        assert texts == [[c.text for c in row] for row in alone]
    other = sample(policy, seeds=(4, 5, 6))
    assert [[c.text for c in row] for row in other] != [[c.text for c in row] for row in alone]


@pytest.mark.parametrize("rows", [Shared, lambda model: Padded(model, 0)], ids=["shared", "padded"])
def test_log_probabilities_and_entropies_are_those_of_the_model(policy, rows):
    k, limit, eos = 3, 6, policy.tokenizer.eos_token_id
    ids = [policy.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    uniform = torch.from_numpy(np.random.default_rng(0).random((len(PROMPTS) * k, limit)))
    with torch.inference_mode():
        samples = decode(rows(policy.model), ids, k, uniform, 1.0, [eos])
    for row in range(len(PROMPTS) * k):
        prompt, written = ids[row // k], samples.tokens[row, : samples.lengths[row]].tolist()
        with torch.inference_mode():
            logits = policy.model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].double()
        logp = torch.log_softmax(logits, -1)
        assert samples.logprob[row].item() == pytest.approx(logp[range(len(written)), written].sum().item(), abs=1e-3)
        surprisal = torch.minimum(-logp, -logp.sort(descending=True).values[:, 19:20])  # none beyond the 20th token's
        assert samples.entropy[row].item() == pytest.approx((logp.exp() * surprisal).sum().item(), abs=1e-3)
        cumulative = logp.exp().cumsum(-1)
        for t, token in enumerate(written):  # each token is where its uniform number falls
            assert cumulative[t, token] >= uniform[row, t] - 1e-5
            assert token == 0 or cumulative[t, token - 1] <= uniform[row, t] + 1e-5


PROGRAM = "def f(x):\n    return [x]"


@pytest.mark.parametrize(
    ("read", "texts"), [(one_line, ["def f(x): return [x]", "go east"]), (code, [PROGRAM, "go east"])]
)
def test_sampled_tokens_become_actions_of_the_benchmarks_form(policy, read, texts):
    rows = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (PROGRAM, " go east\n")]
    width = max(map(len, rows))
    samples = Samples(
        tokens=torch.tensor([row + [policy.tokenizer.eos_token_id] * (width - len(row)) for row in rows]),
        lengths=torch.tensor([len(row) for row in rows]),
        logprob=torch.zeros(2),
        entropy=torch.zeros(2),
    )
    (candidates,) = _candidates(policy.tokenizer, samples, 1, 2, [policy.tokenizer.eos_token_id])
    assert [read(candidate.text) for candidate in candidates] == texts


def test_programs_played_before_take_one_line_of_the_prompt_each(policy):
    seen = Observation(state="There is no program yet.")
    played = [Step(index=i, observation=seen, action=a, actor="slm") for i, a in enumerate([PROGRAM, "run", "look"])]
    prompt = render_prompt(policy, policy.slm, "Write.", "Write f.", played, seen).text
    assert "Done: def f(x): …; run; look\n" in prompt


@pytest.fixture
def ends_listed(policy):
    """The model's generation config lists several ends, the last of them a token that it writes often."""
    config, eos = policy.model.generation_config, policy.tokenizer.eos_token_id
    before = config.eos_token_id
    first = [c.text for row in sample(policy, k=20) for c in row if c.n_tokens > 3]
    listed = policy.tokenizer(first[0], add_special_tokens=False)["input_ids"][1]
    config.eos_token_id = [eos, listed]
    yield listed
    config.eos_token_id = before


def test_every_end_that_the_generation_config_lists_ends_a_reply(policy, ends_listed):
    word = policy.tokenizer.decode([ends_listed])
    found = [c for row in sample(policy, k=20) for c in row]
    assert any(1 < c.n_tokens < policy.slm.max_action_tokens for c in found)
    assert all(word not in c.text for c in found)
