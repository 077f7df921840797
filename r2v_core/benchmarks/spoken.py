"""What a language model says in a reply, without its reasoning and without the marks of its chat format.

Models close their reasoning in many ways, and servers cut off the opening mark or the special tokens: what counts is
the closing mark. The marks known here are those of the chat formats of DeepSeek-R1, Qwen3, Magistral, Kimi, Seed,
Command, EXAONE, gpt-oss (Harmony) and their relatives.
"""

from __future__ import annotations

import re

_NAMES = r"(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning|reflection)"
_OPENED = rf"<{_NAMES}>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|(?:begin_of_thought|think_start)\|>"
_CLOSED = rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|(?:end_of_thought|think_end)\|>"
_OPEN = re.compile(_OPENED, re.IGNORECASE)
_CLOSE = re.compile(_CLOSED, re.IGNORECASE)
_PAIR = re.compile(rf"(?:{_OPENED}).*?(?:{_CLOSED})", re.DOTALL | re.IGNORECASE)

_HARMONY = re.compile(r"<\|channel\|>\s*(\w+)[^<]*?(?:<\|constrain\|>\w+)?<\|message\|>", re.IGNORECASE)
_HARMONY_BARE = re.compile(r"\A(?:analysis|commentary)(?:.*assistant\s*final(?P<said>.*)|[A-Z].*)\Z", re.DOTALL)
"""As it stands where special tokens were left out: ``analysisWe need …assistantfinalgo north``."""

_BEGINS = re.compile(
    r"\A\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|im_start\|>\s*assistant|<\|start\|>\s*assistant"
    r"|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<start_of_turn>\s*model|<\|assistant\|>"
    r"|<\|START_(?:RESPONSE|ACTION|TEXT)\|>)\s*"
)
_ENDS = re.compile(
    r"<\|im_end\|>|<\|im_start\|>|<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|<\|endoftext\|>|<\|end_of_turn\|>"
    r"|<end_of_turn>|<start_of_turn>|<\|end\|>|<\|return\|>|<\|call\|>|<\|user\|>|<\|start_header_id\|>|</s>|<eos>"
    r"|\[/?INST\]|<｜end▁of▁sentence｜>|<\|END_(?:OF_TURN_TOKEN|RESPONSE|ACTION|TEXT)\|>"
)

UNFINISHED = "the reasoning did not come to an end"
ALL_REASONING = "the reply is reasoning and nothing else"


def spoken(reply: str) -> tuple[str, str | None]:
    """What a reply says after its reasoning, within its turn; and what is wrong with it, if anything.

    The text after the last mark that closes a reasoning part counts, whether the opening mark is there or not; where
    nothing stands after it, what stands outside of the parts that are whole. A reply that ends inside a reasoning
    part says nothing.
    """
    if channels := list(_HARMONY.finditer(reply)):
        last = channels[-1]
        if last[1].lower() != "final":
            return "", UNFINISHED
        reply = reply[last.end() :]
    elif bare := _HARMONY_BARE.match(reply):
        if bare["said"] is None:
            return "", UNFINISHED
        reply = bare["said"]
    closes, opens = list(_CLOSE.finditer(reply)), list(_OPEN.finditer(reply))
    if opens and (not closes or opens[-1].start() > closes[-1].start()):
        return "", UNFINISHED
    if closes:
        after = _turn(reply[closes[-1].end() :])
        outside = _PAIR.sub("", reply)
        before = "" if _CLOSE.search(outside) else _turn(outside)
        return (after, None) if after else (before, None) if before else ("", ALL_REASONING)
    return _turn(reply), None


def _turn(text: str) -> str:
    """A text up to the first mark that ends its turn: what a model writes after it is somebody else's."""
    while begins := _BEGINS.match(text):
        text = text[begins.end() :]
    return _ENDS.split(text, maxsplit=1)[0].strip()
