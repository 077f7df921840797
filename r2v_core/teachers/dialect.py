"""What a server of OpenAI's protocol does not take: found out from its refusals, said once, done without or refused.

Servers differ in a handful of parameters. Each is a row of :data:`REFUSALS`: how a server says so, and what is sent
instead. What was found holds for the process, so that a server is asked wrongly once, not once a request.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from r2v_core.errors import R2VError
from r2v_core.teachers.endpoints import Endpoint, Refused

Parameters = dict[str, Any]
"""What is sent besides model and messages."""
LIMITS = ("max_tokens", "max_completion_tokens")
_UNKNOWN = (
    r"unsupported|not? (?:be )?(?:support|permitted|allowed|recogni[sz]ed|accept)|n't support|unknown|unrecogni[sz]ed|"
    r"unexpected|extra (?:inputs?|fields?)|deprecated|invalid (?:parameter|argument|field)|only the default"
)
_STREAM_ONLY = re.compile(
    r"(?:only|must|requires?|required|enable|need)\b[^.]{0,60}\bstream|\bstream[^.]{0,60}(?:only|must|required|enable)|"
    r"non-?stream[^.]{0,60}not support",
    re.IGNORECASE,
)
SEARCHED = 4000
"""Characters of a refusal that are looked at."""


@dataclass(frozen=True)
class Refusal:
    """One thing that a server may refuse."""

    parameter: str
    """Its name; it was sent, unless the refusal is of its absence."""
    says: re.Pattern[str]
    """How the refusal says so."""
    instead: Callable[[Parameters], Parameters]
    """What is sent then."""
    note: str
    """What that means, for the log."""
    absent: bool = False
    """Whether it is the parameter's absence that is refused."""


def _not_known(name: str) -> re.Pattern[str]:
    """A text that says of a parameter that it is not taken, and not that its value is too large."""
    named = rf"(?<![a-z_]){name}(?![a-z_])"
    return re.compile(rf"{named}.{{0,80}}?(?:{_UNKNOWN})|(?:{_UNKNOWN}).{{0,80}}?{named}", re.IGNORECASE | re.DOTALL)


def _other_limit(sent: Parameters) -> Parameters:
    (name,) = set(sent) & set(LIMITS)
    other = LIMITS[1 - LIMITS.index(name)]
    return {other if key == name else key: value for key, value in sent.items()}


def _without(name: str) -> Callable[[Parameters], Parameters]:
    return lambda sent: {key: value for key, value in sent.items() if key != name}


def _streamed(sent: Parameters) -> Parameters:
    return {**sent, "stream": True, "stream_options": {"include_usage": True}}


REFUSALS = (
    Refusal("stream_options", _not_known("stream_options"), _without("stream_options"), "stream_options are left out"),
    Refusal("stream", _STREAM_ONLY, _streamed, "replies are streamed", absent=True),
    Refusal("max_tokens", _not_known("max_tokens"), _other_limit, "max_completion_tokens is sent for max_tokens"),
    Refusal(
        "max_completion_tokens",
        _not_known("max_completion_tokens"),
        _other_limit,
        "max_tokens is sent for max_completion_tokens",
    ),
    Refusal(
        "temperature",
        _not_known("temperature"),
        _without("temperature"),
        "no temperature is sent, so replies are sampled at the server's own",
    ),
)


class Dialect:
    """The parameters that a server takes; any number of threads may ask and tell.

    ``asked_for`` names parameters that were set on purpose: a server that refuses one of them is not asked at all.
    """

    def __init__(
        self, where: Endpoint, parameters: Parameters, asked_for: dict[str, str], log: Callable[[str], None]
    ) -> None:
        self.where = where
        self.parameters = parameters
        self.asked_for = asked_for
        self.log = log
        self._found: set[str] = set()
        self._lock = threading.Lock()

    def learn(self, sent: Parameters, refusal: Refused) -> bool:
        """Whether a request should be made again, with what :attr:`parameters` are then.

        Raises:
            R2VError: if the server does not take what was asked for on purpose.
        """
        with self._lock:
            if sent != self.parameters:
                return True  # another request has found it out meanwhile
            for row in REFUSALS:
                if row.parameter in self._found or not _is_about(row, sent, refusal):
                    continue
                if row.parameter in self.asked_for:
                    raise R2VError(f"{refusal}; {self.asked_for[row.parameter]}")
                self._change(row.parameter, row.instead(sent), f"{row.note} ({refusal.said})")
                return True
        return False

    def answered(self, sent: Parameters, tokens_out: int) -> None:
        """Look at a reply: a server that goes beyond the limit of tokens knows it by its other name, or not at all."""
        with self._lock:
            (name,) = set(sent) & set(LIMITS)
            if sent != self.parameters or tokens_out <= sent[name] or self._found & {*LIMITS, "limit"}:
                return
            (other,) = set(LIMITS) - {name}
            said = f"a reply of {tokens_out} tokens came for {name}={sent[name]}; {other} is sent from now on"
            self._change("limit", _other_limit(sent), said)

    def _change(self, found: str, parameters: Parameters, said: str) -> None:
        self._found.add(found)
        self.parameters = parameters
        self.log(f"{self.where}: {said} (said once)")


def _is_about(row: Refusal, sent: Parameters, refusal: Refused) -> bool:
    return (row.parameter in sent) != row.absent and row.says.search(refusal.body[:SEARCHED]) is not None
