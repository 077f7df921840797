"""The step verifier V(x, a) ∈ [0, 1]: the small model's layers, a LoRA adapter of its own, and two linear heads.

All actions of one state are read in one pass: a row is ``[prompt | action 1 | … | action K]``, every action sees the
prompt and itself but no other action, and its positions continue from the prompt's end. So the prompt is encoded once,
and an action's score does not depend on which others it is scored with. In the closed loop, what several prompts begin
with is read once for them all, too (:mod:`r2v_core.models.prefix_tree`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from transformers import PreTrainedTokenizerBase

from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.control_tokens import action_ids
from r2v_core.models.hub import load_adapter, load_lm, load_tokenizer, merge
from r2v_core.models.prefix_tree import PrefixTree, bears_a_tree

HEADS = ("step", "outcome")
"""step: does the action bring the goal closer; outcome: does the episode end in success."""
INFO = "verifier.json"
BATCH_STATES = 24


class VerifierInfo(BaseModel):
    """What ``verifier.json`` says beside the adapter."""

    model_config = ConfigDict(extra="forbid")
    base: str = Field(description="slm.model it was trained on")
    layers: int = Field(description="lowest transformer layers used; 0: all")
    heads: list[str] = Field(description="heads that saw both classes in training")


@dataclass(frozen=True)
class Packed:
    """B states with N actions in all, ready for :class:`VerifierModel`."""

    input_ids: torch.Tensor  # [B, L] long
    segments: torch.Tensor  # [B, L] long: −1 padding, 0 prompt, j ≥ 1 action j
    positions: torch.Tensor  # [B, L] long
    rows: torch.Tensor  # [N] long: row of each action
    ends: torch.Tensor  # [N] long: column of its end-of-turn token

    def tensors(self, device: torch.device | None = None) -> dict[str, torch.Tensor]:
        """As keyword arguments of the model, on ``device``."""
        return {name: value.to(device) if device else value for name, value in vars(self).items()}


def pack(prompts: Sequence[Sequence[int]], actions: Sequence[Sequence[Sequence[int]]], pad: int) -> Packed:
    """Lay out each prompt with its actions in one row, padded on the right.

    Args:
        prompts: token ids of B prompts.
        actions: for each prompt, token ids of its actions, end-of-turn token included.
        pad: token id that fills up rows.
    """
    ids, segments, positions, rows, ends = [], [], [], [], []
    for row, (prompt, some) in enumerate(zip(prompts, actions, strict=True)):
        line, segment, position = list(prompt), [0] * len(prompt), list(range(len(prompt)))
        for j, action in enumerate(some, start=1):
            line += action
            segment += [j] * len(action)
            position += range(len(prompt), len(prompt) + len(action))
            rows.append(row)
            ends.append(len(line) - 1)
        ids.append(line)
        segments.append(segment)
        positions.append(position)
    width = max(map(len, ids))
    return Packed(
        input_ids=torch.tensor([line + [pad] * (width - len(line)) for line in ids]),
        segments=torch.tensor([line + [-1] * (width - len(line)) for line in segments]),
        positions=torch.tensor([line + [0] * (width - len(line)) for line in positions]),
        rows=torch.tensor(rows, dtype=torch.long),
        ends=torch.tensor(ends, dtype=torch.long),
    )


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """Which token may attend to which, ``[B, 1, L, L]`` bool: earlier ones of the prompt and of its own segment.

    A padding token attends to itself, so that no row of the softmax is empty.
    """
    length = segments.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    allowed = earlier & (key >= 0) & ((key == 0) | (key == query))
    return (allowed | torch.eye(length, dtype=torch.bool, device=segments.device))[:, None]


class VerifierModel(nn.Module):
    """Transformer backbone and two heads; without ``labels`` it returns logits, with them also the loss."""

    def __init__(self, backbone: nn.Module, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.Linear(hidden, len(HEADS), dtype=torch.float32, device=next(backbone.parameters()).device)
        nn.init.zeros_(self.heads.bias)
        nn.init.normal_(self.heads.weight, std=0.02)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Keep what enters each layer alone and compute the rest again backward; the Trainer calls this by its name.

        Args:
            options: as transformers' models take them.
        """
        backbone: Any = self.backbone
        backbone.activation_checkpointing_enable(**options)

    def forward(
        self,
        input_ids: torch.Tensor,
        segments: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor,
        ends: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``[N, 2]`` of the N actions, one column a head, read at their end-of-turn tokens."""
        hidden = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask(segments), position_ids=positions, use_cache=False
        ).last_hidden_state
        return self.judge(hidden[rows, ends])

    def judge(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, 2]`` from the hidden states ``[N, H]`` of actions' last tokens."""
        with torch.autocast(pooled.device.type, enabled=False):
            logits: torch.Tensor = self.heads(pooled.float())
        return logits


def build(slm: SLMConfig, cache: Path, layers: int) -> VerifierModel:
    """A verifier on the small model's lowest ``layers`` transformer layers (0: all), heads untrained.

    Its attention is always torch's SDPA, because flash attention takes no mask of this form.

    Raises:
        R2VError: if the model can't be loaded, or has fewer layers than asked for.
    """
    lm = load_lm(slm.model_copy(update={"attention": "sdpa"}), cache)
    backbone: Any = lm.base_model
    stack = getattr(backbone, "layers", None)
    if layers:
        if stack is None or layers > len(stack):
            has = f"{len(stack)} layers" if stack is not None else "layers that can't be cut"
            raise R2VError(f"training.verifier.layers: {layers}, but '{slm.model}' has {has}; use 0 for all")
        backbone.layers = stack[:layers]
        backbone.config.num_hidden_layers = layers
    return VerifierModel(backbone, lm.config.hidden_size)


class Verifier:
    """A trained verifier, loaded for scoring."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, info: VerifierInfo) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.info = info

    @classmethod
    def load(cls, directory: Path, slm: SLMConfig, cache: Path) -> Verifier:
        """Load from a run directory of ``train_verifier`` (``adapter/`` and ``verifier.json``).

        The adapter is merged into the base weights (:func:`r2v_core.models.hub.merge`).

        Raises:
            R2VError: if files are missing or broken, or the verifier belongs to another base model.
        """
        try:
            info = VerifierInfo.model_validate_json((directory / INFO).read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise R2VError(
                f"{directory / INFO}: no trained verifier there ({str(error).splitlines()[0]}); materialise 'verifier'"
            ) from error
        if info.base != slm.model:
            raise R2VError(f"{directory}: a verifier of '{info.base}', but slm.model is '{slm.model}'; train it again")
        model = build(slm, cache, info.layers)
        merged = merge(load_adapter(model, directory / "adapter"), quantized=slm.quantization != "none")
        return cls(merged, load_tokenizer(slm, cache), info)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[str], actions: Sequence[Sequence[str]], batch_size: int = BATCH_STATES
    ) -> list[list[tuple[float, float]]]:
        """(step, outcome) in [0, 1] for each prompt's actions, in order; prompts of similar length go together.

        Scores read as probabilities under equally frequent classes. A head that had only one class to learn from
        answers as the other one.
        """
        ids = [self.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        texts = [[action_ids(self.tokenizer, action) for action in some] for some in actions]
        order = sorted((i for i in range(len(prompts)) if texts[i]), key=lambda i: (len(ids[i]), i))
        found: list[list[tuple[float, float]]] = [[] for _ in prompts]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            scores = self._known(torch.sigmoid(self._logits([ids[i] for i in chosen], [texts[i] for i in chosen])))
            rows = [i for i in chosen for _ in texts[i]]
            for i, (step, outcome) in zip(rows, scores.tolist(), strict=True):
                found[i].append((step, outcome))
        return found

    def _logits(self, prompts: Sequence[list[int]], actions: Sequence[list[list[int]]]) -> torch.Tensor:
        """``[N, 2]`` for all actions, prompt by prompt."""
        model: Any = self.model
        if not bears_a_tree(model.backbone):
            packed = pack(prompts, actions, int(self.tokenizer.pad_token_id))
            return model(**packed.tensors(model.backbone.device))
        tree = PrefixTree(model.backbone)
        starts = [tree.add(prompt) for prompt in prompts]
        ends = [tree.add(text, at) for at, some in zip(starts, actions, strict=True) for text in some]
        return model.judge(tree.outputs(ends))

    def _known(self, scores: torch.Tensor) -> torch.Tensor:
        columns = [HEADS.index(head if head in self.info.heads else self.info.heads[0]) for head in HEADS]
        return scores[:, columns]


def write_info(info: VerifierInfo, directory: Path) -> None:
    """Write ``verifier.json``."""
    from r2v_core.runs.manifest import write_atomic

    write_atomic(directory / INFO, json.dumps(info.model_dump(mode="json"), indent=2) + "\n")
