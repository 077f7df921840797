"""A chat as the text that a model's own template makes of it, whatever the template can and can't do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from r2v_core.errors import R2VError
from r2v_core.models.control_tokens import neutral

_TODAY = datetime(2024, 7, 26)
"""The date in prompts of templates that put one there: Llama's own default, the same on every day."""

_SETTINGS: dict[str, Any] = {
    "date_string": _TODAY.strftime("%d %b %Y"),
    "enable_thinking": False,
    "thinking": False,
    "reasoning_effort": "low",
}
"""What templates of various models ask for; a template that does not know a name passes over it."""

_ASKS_DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

_OPENED = "<think>"

_COUNTED = 4096
"""Texts whose number of tokens is remembered: a prompt's parts come again in the next one, and so do cuts of them."""


class ChatTemplate:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # of the tokenizer alone: one that held this object would keep an engine alive that is let go of
        self._counted = lru_cache(_COUNTED)(partial(_tokens_of, tokenizer))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A chat as text, ending where the assistant's turn begins.

        Control tokens in the messages are broken up, thinking is off, dates are fixed. Successive turns of one role
        are one turn, and without a role for the system its message opens the first user's turn.
        """
        return _render(self.tokenizer, [(m["role"], neutral(self.tokenizer, m["content"])) for m in messages])

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens added."""
        return self._counted(text)


def _tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that the template renders a chat as the pipeline holds them.

    Raises:
        R2VError: saying what the template objects to.
    """
    _render(tokenizer, [("system", "Play."), ("user", "A room."), ("assistant", "look"), ("user", "A hall.")])


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]]) -> str:
    from jinja2 import TemplateError

    if not _knows_systems(tokenizer, str(tokenizer.chat_template)):
        turns = [("user" if role == "system" else role, content) for role, content in turns]
    try:
        return _applied(tokenizer, turns)
    except TemplateError as error:
        raise R2VError(
            f"slm.model: the chat template of '{tokenizer.name_or_path}' refuses a chat of system, user and assistant "
            f"({str(error).splitlines()[0]}); choose an instruction-tuned model"
        ) from None


def _applied(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]]) -> str:
    talk = [
        {"role": role, "content": "\n\n".join(content for _, content in some)}
        for role, some in groupby(turns, key=lambda turn: turn[0])
    ]
    dated = _ASKS_DATE.sub(lambda found: repr(_TODAY.strftime(found[2])), str(tokenizer.chat_template))
    text = str(
        tokenizer.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=True, chat_template=dated, **_SETTINGS
        )
    )
    # a template that opens the reasoning itself can't do without: the model finds it closed, and answers
    return f"{text.rstrip()}\n\n</think>\n\n" if text.rstrip().endswith(_OPENED) else text


@lru_cache(maxsize=8)
def _knows_systems(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template shows a system's message; some refuse it, others pass over it."""
    from jinja2 import TemplateError

    try:
        return "north-by-northwest" in _applied(tokenizer, [("system", "north-by-northwest"), ("user", "A room.")])
    except TemplateError:
        return False
