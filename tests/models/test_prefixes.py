"""Beginnings that prompts share are encoded once, and change nothing."""

from __future__ import annotations

import pytest
import torch

from r2v_core.models.hub import load_lm, load_tokenizer
from r2v_core.models.prefixes import PASS, begin, extend, shared_length

INSTRUCTIONS = "You play a text game. Reply with one short command and nothing else. "
GOALS = [
    "Goal: take the red key from the chest in the cellar, open the door and go east to find the lamp. ",
    "Goal: cook the pepper in the kitchen, put it on the table, go north twice and eat what lies on the floor. ",
]
STATES = ["A cellar.", "A cellar. The chest is open.", "You are in a corridor; a door leads east.", "You see a lamp."]
MIXED = [INSTRUCTIONS + goal + state for state in STATES for goal in GOALS]


@pytest.fixture(scope="module")
def lm(tiny_slm, model_cache):
    return load_lm(tiny_slm, model_cache), load_tokenizer(tiny_slm, model_cache)


def read(tokenizer, prompts):
    return [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]


@pytest.mark.parametrize(
    "prompts",
    [MIXED, MIXED[:1], MIXED[::2], [MIXED[0]] * 3, [*MIXED, INSTRUCTIONS + "Go."], ["a", "b c d"], [*MIXED, "Else."]],
    ids=["two goals", "one prompt", "one goal", "equal ones", "one without a goal", "nothing shared", "a stranger"],
)
@torch.inference_mode()
def test_each_prompt_ends_as_if_it_were_read_alone(lm, prompts):
    model, tokenizer = lm
    tokens = read(tokenizer, prompts)
    begun = begin(model, tokens, tokenizer.pad_token_id)
    whole, last = extend(model, begun, [ids[n:] for ids, n in zip(tokens, begun.read, strict=True)], 0)
    assert whole.read == list(map(len, tokens)) == whole.mask.sum(-1).tolist()
    for row, ids in zip(last, tokens, strict=True):
        torch.testing.assert_close(row, model(torch.tensor([ids])).logits[0, -1], atol=1e-4, rtol=1e-3)


@pytest.fixture
def columns(lm, monkeypatch):
    """Tokens, padding included, of each pass."""
    model, found = lm[0], []
    forward = model.forward

    def counted(input_ids, **rest):
        found.append(input_ids.numel())
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", counted)
    return found


@torch.inference_mode()
def test_instructions_are_read_once_and_then_each_goal_once(lm, columns):
    model, tokenizer = lm
    tokens = read(tokenizer, MIXED)
    begun = begin(model, tokens, tokenizer.pad_token_id)
    common = shared_length(tokens)
    goals = [shared_length(tokens[i::2]) for i in (0, 1)]
    assert columns == [common, 2 * (max(goals) - common)]
    assert begun.read == goals * len(STATES)


@torch.inference_mode()
def test_goals_have_no_pass_of_their_own_where_it_saves_little(lm, columns):
    model, tokenizer = lm
    tokens = read(tokenizer, MIXED[:2] + MIXED[2:3])  # one goal twice, the other once
    saved = shared_length([tokens[0], tokens[2]]) - shared_length(tokens)
    assert saved < PASS
    begun = begin(model, tokens, tokenizer.pad_token_id)
    assert len(columns) == 1
    assert begun.read == [shared_length(tokens)] * 3
