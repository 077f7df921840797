"""A policy behind an OpenAI-compatible server, as an engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.vllm import Options
from r2v_core.engines.vllm.client import Client, at_once
from r2v_core.engines.vllm.server import Server
from r2v_core.errors import R2VError
from r2v_core.models.chat_template import ChatTemplate
from r2v_core.models.control_tokens import action_ids
from r2v_core.models.entropy import TOP, clipped_entropy
from r2v_core.trajectory import Candidate

_ID = "token_id:"
_SEEDS = 2**62
_ALIKE = 0.1
"""Nats by which a log-probability may differ when the same prompt is read twice."""


class Served(ChatTemplate):
    """A model at a server. Prompts go there as token ids, so that they are what the other engines read.

    Args:
        name: the model's at the server.
        adapted: whether that is a LoRA adapter.
        ends: ids of tokens that end a reply.
        server: the one that was started for this engine; it ends with it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        slm: SLMConfig,
        options: Options,
        client: Client,
        name: str,
        ends: Sequence[int],
        adapted: bool,
        server: Server | None = None,
    ) -> None:
        super().__init__(tokenizer)
        self.slm = slm
        self.options = options
        self.client = client
        self.name = name
        self.ends = list(ends)
        self.adapted = adapted
        self.server = server

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], *, k: int, temperature: float, batch_size: int
    ) -> list[list[Candidate]]:
        """K replies to each prompt (:meth:`r2v_core.engines.base.Engine.sample`); the server forms its own batches."""
        n = k if temperature > 0 else 1  # the likeliest tokens are the same each time
        requests = [
            self._request(self._ids(prompt), n=n, seed=seed % _SEEDS, temperature=temperature)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [self._candidates(answer) * (k // n) for answer in at_once(self._ask, requests, self.options.in_flight)]

    def score(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[list[float]]:
        """Log-probability of each continuation, end of turn included, nats: the server echoes what it was given."""
        pairs = [
            (self._ids(prompt), action_ids(self.tokenizer, text))
            for prompt, some in zip(prompts, continuations, strict=True)
            for text in some
        ]
        requests = [self._request(a + b, max_tokens=1, temperature=0, logprobs=1, echo=True) for a, b in pairs]
        # vLLM mixes up the rows of requests that ask for a prompt's log-probabilities under an adapter side by side
        limit = 1 if self.adapted else self.options.in_flight
        found = []
        for (before, after), answer in zip(pairs, at_once(self._ask, requests, limit), strict=True):
            logprobs = _logprobs(self._choices(answer)[0], self.client.address)["token_logprobs"]
            found.append(float(sum(logprobs[len(before) : len(before) + len(after)])))
        scores = iter(found)
        return [[next(scores) for _ in some] for some in continuations]

    def check(self) -> None:
        """See that the server tells log-probabilities, enough of them, and the model's own.

        Raises:
            R2VError: if it does not, saying what to start it with.
        """
        prompt = self._ids(self.render([{"role": "user", "content": "?"}]))
        tops = []
        for temperature in (0.0, 2.0):
            answer = self._ask(self._request(prompt, max_tokens=1, temperature=temperature, seed=0))
            top = _logprobs(self._choices(answer)[0], self.client.address)["top_logprobs"]
            tops.append(sorted(top[0].values(), reverse=True)[:TOP] if top and top[0] else [])
        if min(map(len, tops)) < min(TOP, len(self.tokenizer)):
            raise R2VError(
                f"{self.client.address}: returns log-probabilities of only {min(map(len, tops))} tokens, and entropies "
                f"need {TOP}; start vLLM with --max-logprobs={TOP}"
            )
        if max(abs(a - b) for a, b in zip(*tops, strict=True)) > _ALIKE:
            raise R2VError(
                f"{self.client.address}: its log-probabilities depend on the temperature; start vLLM with "
                "--logprobs-mode=raw_logprobs"
            )

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def _request(self, prompt: list[int], **wanted: Any) -> dict[str, Any]:
        """The body of a request, whatever the server's defaults are."""
        return {
            "model": self.name,
            "prompt": prompt,
            "max_tokens": self.slm.max_action_tokens,
            "logprobs": TOP,
            "return_tokens_as_token_ids": True,
            "stop_token_ids": self.ends,
            **{"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            **wanted,
        }

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.client.ask("/v1/completions", request)

    def _choices(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            raise R2VError(f"{self.client.address}: the answer of '{self.name}' has no choices; use a vLLM server")
        return sorted(choices, key=lambda choice: int(choice["index"]))

    def _candidates(self, answer: dict[str, Any]) -> list[Candidate]:
        return [self._candidate(choice) for choice in self._choices(answer)]

    def _candidate(self, choice: dict[str, Any]) -> Candidate:
        told = _logprobs(choice, self.client.address)
        tokens, values, tops = told["tokens"], told["token_logprobs"], told["top_logprobs"]
        text = str(choice.get("text", ""))
        if all(str(token).startswith(_ID) for token in tokens):
            ids = [int(token.removeprefix(_ID)) for token in tokens]
            ended = bool(ids) and ids[-1] in self.ends
            if choice.get("finish_reason") == "stop" and not ended:
                raise R2VError(
                    f"{self.client.address}: returns no log-probability of the end of a turn; use a server that does"
                )
            text = str(self.tokenizer.decode(ids[: len(ids) - ended], skip_special_tokens=True))
        entropy = sum(clipped_entropy(top.values()) for top in tops)
        return Candidate(text=text, logprob=math.fsum(values), n_tokens=len(values), entropy=entropy / len(values))


def _logprobs(choice: dict[str, Any], address: str) -> dict[str, list[Any]]:
    """What a choice tells of its tokens, as OpenAI's completions do."""
    told = choice.get("logprobs")
    if not isinstance(told, dict) or not told.get("token_logprobs"):
        raise R2VError(f"{address}: returns no log-probabilities of a completion's tokens; use a server that does")
    return {key: told.get(key) or [] for key in ("tokens", "token_logprobs", "top_logprobs")}
