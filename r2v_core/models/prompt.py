"""What the small model reads: one chat prompt per state, the same in training and in the closed loop."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from r2v_core.benchmarks.actions import headline
from r2v_core.config.schema import SLMConfig
from r2v_core.trajectory import Observation, Step


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    slm: SLMConfig,
    instructions: str,
    goal: str,
    history: Sequence[Step],
    observation: Observation,
) -> str:
    """The prompt for the next action, ending where the assistant's turn begins.

    Shows the goal, the last ``slm.history_steps`` actions (of programs the first line), the feedback to the latest one,
    and the present state. If that exceeds ``slm.max_prompt_tokens``, history goes first, then the state is cut from its
    end.
    """
    for shown in range(min(slm.history_steps, len(history)), -1, -1):
        text = _render(tokenizer, instructions, goal, history, shown, observation.feedback, observation.state)
        if count_tokens(tokenizer, text) <= slm.max_prompt_tokens:
            return text
    state = observation.state
    while state:
        excess = count_tokens(tokenizer, text) - slm.max_prompt_tokens
        if excess <= 0:
            break
        state = state[: max(len(state) - 3 * excess, 0)].rstrip()
        text = _render(tokenizer, instructions, goal, history, 0, observation.feedback[:200], state)
    return text


def _render(
    tokenizer: PreTrainedTokenizerBase,
    instructions: str,
    goal: str,
    history: Sequence[Step],
    shown: int,
    feedback: str,
    state: str,
) -> str:
    lines = [f"Goal: {goal}"]
    if shown:
        lines.append("Done: " + "; ".join(headline(step.action) for step in history[-shown:]))
    if feedback:
        lines.append(f"Result: {feedback}")
    lines.append(state)
    messages = [{"role": "system", "content": instructions}, {"role": "user", "content": "\n".join(lines)}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Number of tokens of a text, without special tokens added."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends an assistant turn (the tokenizer's end-of-sequence token)."""
    return str(tokenizer.eos_token)
