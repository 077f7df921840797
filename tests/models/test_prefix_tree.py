"""What texts begin with is read once, and each ends as if it had been read alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r2v_core.models.hub import load_lm, load_tokenizer
from r2v_core.models.prefix_tree import PrefixTree, bears_a_tree

INSTRUCTIONS = "You play a text game. Reply with one short command and nothing else. "
GOALS = [
    "Goal: take the red key from the chest in the cellar, open the door and go east to find the lamp. ",
    "Goal: cook the pepper in the kitchen, put it on the table, go north twice and eat what lies on the floor. ",
]
STATES = ["A cellar.", "A cellar. The chest is open.", "You are in a corridor; a door leads east.", "You see a lamp."]
MIXED = [INSTRUCTIONS + goal + state for state in STATES for goal in GOALS]


@pytest.fixture(scope="module")
def lm(tiny_slm, model_cache):
    return load_lm(tiny_slm, model_cache).eval(), load_tokenizer(tiny_slm, model_cache)


@pytest.fixture
def passes(lm, monkeypatch):
    """Tokens of each pass."""
    model, found = lm[0], []
    forward = model.forward

    def counted(input_ids, **rest):
        found.append(input_ids.numel())
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", counted)
    return found


def read(tokenizer, prompts):
    return [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]


def alone(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize(
    "prompts",
    [MIXED, MIXED[:1], MIXED[::2], [MIXED[0]] * 3, [*MIXED, INSTRUCTIONS + "Go."], ["a", "b c d"], [*MIXED, "Else."]],
    ids=["two goals", "one prompt", "one goal", "equal ones", "one without a goal", "nothing shared", "a stranger"],
)
@torch.inference_mode()
def test_each_prompt_ends_as_if_it_were_read_alone(lm, passes, prompts):
    model, tokenizer = lm
    tokens = read(tokenizer, prompts)
    tree = PrefixTree(model)
    found = tree.outputs([tree.add(ids) for ids in tokens])
    assert passes == [len({tuple(ids[:n]) for ids in tokens for n in range(1, len(ids) + 1)})]  # each beginning once
    for row, ids in zip(found, tokens, strict=True):
        torch.testing.assert_close(row, alone(model, ids), atol=1e-4, rtol=1e-3)


TEXTS = st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(passes=st.lists(TEXTS, min_size=1, max_size=3))
@torch.inference_mode()
def test_later_passes_go_on_from_what_was_read(lm, passes):
    """Texts over few tokens, so that they begin, end and go on within each other in every way."""
    model, _ = lm
    tree = PrefixTree(model)
    for texts in passes:
        for row, ids in zip(tree.outputs([tree.add(ids) for ids in texts]), texts, strict=True):
            torch.testing.assert_close(row, alone(model, ids), atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_a_reply_goes_on_from_its_prompt_and_reads_nothing_again(lm, passes):
    model, tokenizer = lm
    tokens = read(tokenizer, MIXED)
    tree = PrefixTree(model)
    nodes = [tree.add(ids) for ids in tokens]
    tree.outputs(nodes)
    found = tree.outputs([tree.add([7], nodes[0]), tree.add([9], nodes[0]), tree.add([7], nodes[0])])
    assert passes[1:] == [2]
    for row, token in zip(found, (7, 9, 7), strict=True):
        torch.testing.assert_close(row, alone(model, [*tokens[0], token]), atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_a_backbone_gives_hidden_states_and_the_model_keeps_its_own_attention(lm):
    model, tokenizer = lm
    backbone = model.base_model
    (ids,) = read(tokenizer, MIXED[:1])
    tree = PrefixTree(backbone)
    found = tree.outputs([tree.add(ids), tree.add(ids[:5])])
    hidden = backbone(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(found, hidden[[-1, 4]], atol=1e-4, rtol=1e-3)
    assert model.config._attn_implementation == backbone.config._attn_implementation == "sdpa" and bears_a_tree(model)
