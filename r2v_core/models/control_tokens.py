"""Tokens that steer a model rather than say something: which there are, how a turn ends, and that no text forges one.

What environments, tools and other models say is put into prompts. A piece of it that spells a control token of the
model's vocabulary gets a space after its first character, so that the tokenizer reads it as ordinary text; text
without any stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from r2v_core.errors import R2VError

_SHAPE = re.compile(r"<[|｜].*[|｜]>")
"""Tokens of this shape steer a model, whether or not the tokenizer's file calls them special."""

_SAID = "north-by-northwest"


def neutral(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text with every control token in it broken up."""
    control = _control(tokenizer, str(tokenizer.chat_template))
    while control.search(text):  # breaking one up may bare one that overlapped it
        text = control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


@lru_cache(maxsize=8)
def _control(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    """Finds the vocabulary's control tokens: special ones, and marks (``<think>``) that the chat template works with.

    Other added tokens (runs of blanks, HTML tags) are words like any others.
    """
    special = set(tokenizer.all_special_tokens)
    tokens = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or _SHAPE.fullmatch(token.content) or (token.content[0] in "<[" and token.content in template)
    ]
    longest_first = sorted({token for token in (*special, *tokens) if len(token.strip()) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends an assistant turn: what the chat template puts there, else the end-of-sequence token.

    Raises:
        R2VError: if there is neither.
    """
    end = _ends_with(tokenizer, str(tokenizer.chat_template)) or tokenizer.eos_token
    if not end:
        raise R2VError(
            f"slm.model: '{tokenizer.name_or_path}' has no token that ends a turn: its tokenizer has no eos_token and "
            "its chat template ends an assistant's turn with none; name one (eos_token in tokenizer_config.json)"
        )
    return str(end)


@lru_cache(maxsize=8)
def _ends_with(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    from jinja2 import TemplateError

    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SAID}]
    try:
        text = str(tokenizer.apply_chat_template(talk, tokenize=False))
    except TemplateError:
        return None
    found = _control(tokenizer, template).search(text.rpartition(_SAID)[2])
    return found[0] if found else None


def end_ids(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all tokens that end a reply; the one that ends a turn is the first.

    They are the tokenizer's, the chat template's, and those of the model's generation config, which may list several.
    """
    stated: Any = getattr(generation, "eos_token_id", None)
    listed = stated if isinstance(stated, list) else [stated]
    ids = [tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)), tokenizer.eos_token_id, *listed]
    return list(dict.fromkeys(int(each) for each in ids if each is not None))


def action_ids(tokenizer: PreTrainedTokenizerBase, action: str) -> list[int]:
    """Token ids of an action with the end-of-turn token; a control token spelt out in it is text."""
    ids: list[int] = tokenizer(action, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, int(tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)))]
