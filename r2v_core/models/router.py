"""The router: from the features of a step to a calibrated probability, that of its label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.special import expit
from torch import Tensor, nn

from r2v_core.errors import R2VError
from r2v_core.models.boosted import BoostedTrees
from r2v_core.models.labels import BENEFIT, PROGRESS
from r2v_core.runs.manifest import write_atomic
from r2v_core.trajectory import Record, version_field

WEIGHTS_NAME = "router.safetensors"
SETTINGS_NAME = "router.json"
VERSION = 3


Tally = Annotated[list[int], Field(min_length=2, max_length=2)]
"""Won and played."""


class RouterRow(Record):
    """One step of a logged rollout, as the router learns from it."""

    schema_version: int = version_field("RouterRow")
    task_id: str
    template_id: str
    family: str
    split: Literal["router", "validation"]
    z: int | None = Field(description="perturbation seed; None: played clean")
    episode_id: str
    step: int = Field(ge=0)
    features: dict[str, float]
    label: float = Field(
        ge=0,
        le=1,
        description="1: the SLM's chosen action fails to make progress (or, with label_source 'outcome', the SLM-only "
        "continuation from here fails), whoever really acted. With label_source 'benefit': what a call adds to the "
        "share of episodes won from here, at least 0",
    )
    label_source: Literal["progress", "outcome", "benefit"]
    with_teacher: Tally | None = Field(
        default=None, description="continuations won and played after the teacher's action; None: no benefit was played"
    )
    alone: Tally | None = Field(default=None, description="the same after the SLM's chosen action")
    actor: Literal["slm", "teacher"] = Field(description="who really played the step")
    failed: bool | None = Field(
        default=None,
        description="did the action really played fail, judged as the label is; None where unknown or where a tool "
        "failure swallowed the action. On teacher steps this measures the teacher",
    )
    success: bool = Field(description="the benchmark's verdict on the whole rollout")

    @property
    def label_name(self) -> str:
        """Which of :data:`~r2v_core.models.labels.LABELS` it is."""
        return BENEFIT if self.label_source == BENEFIT else PROGRESS


def label_name(rows: Sequence[RouterRow]) -> str:
    """The one label of a run's rows.

    Raises:
        R2VError: if they hold more than one.
    """
    names = sorted({row.label_name for row in rows})
    if len(names) > 1:
        raise R2VError(
            f"rows are labelled by {' and by '.join(names)}, and a router learns from one label; materialise "
            "'router_features' again"
        )
    return names[0] if names else PROGRESS


class RouterNet(nn.Module):
    """MLP from F features to one logit: per hidden layer linear, batch norm, GELU, dropout; without one, linear.

    The inputs' mean and standard deviation are buffers, so that a saved net takes raw features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_features: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        self.hidden = list(hidden)
        layers: list[nn.Module] = []
        width = n_features
        for size in hidden:
            layers += [nn.Linear(width, size), nn.BatchNorm1d(size), nn.GELU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def standardise(self, x: Tensor) -> None:
        """Take mean and standard deviation from data of shape (n, F); a constant feature is only centred."""
        std, mean = torch.std_mean(x, dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n,) from raw features of shape (n, F)."""
        logits: Tensor = self.layers((x - self.mean) / self.std)
        return logits.squeeze(-1)


@dataclass
class Scorer:
    """From features to a calibrated probability: the mean logit of its nets or trees, on a fitted scale."""

    nets: Sequence[RouterNet | BoostedTrees]
    slope: float = 1.0
    level: float = 0.0

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Uncalibrated logits, shape (n,) from (n, F); on the CPU."""
        with torch.inference_mode():
            found = [net.eval()(torch.from_numpy(x)).double() for net in self.nets]
        return torch.stack(found).mean(dim=0).numpy()

    def probability(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """σ(slope · logit + level), shape (n,) from (n, F)."""
        return expit(self.slope * self.logits(x) + self.level)


@dataclass
class Router:
    """A trained router. It escalates where :meth:`probability` exceeds :attr:`threshold`.

    A probability is what :data:`~r2v_core.models.labels.LABELS` says of :attr:`label`.
    """

    scorers: dict[str, Scorer]
    """Name (:mod:`r2v_core.training.scorers`) → scorer: the chosen one, and those that baselines need."""
    features: list[str]
    chosen: str
    """The scorer that ``r2v`` uses."""
    threshold: float = 0.5
    label: str = PROGRESS
    """What it was trained on."""
    rules: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the rules it is compared with need, calibrated on the same validation tasks as the threshold."""
    shares: dict[str, list[float]] = field(default_factory=dict)
    """Scoring rule → its thresholds for 0, 1, …, 100 % of the router split's logged steps above them."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """How the threshold was chosen: criterion, bound, whether it was met, share of escalations."""
    comparison: list[dict[str, Any]] = field(default_factory=list)
    """What cross-fitting found for each scorer that was compared."""

    @property
    def scorer(self) -> Scorer:
        """The chosen one."""
        return self.scorers[self.chosen]

    def logits(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Uncalibrated logits of shape (n,) of raw features of shape (n, F), columns as in :attr:`features`.

        Raises:
            ValueError: for another number of columns.
        """
        return self.scorer.logits(self._checked(rows))

    def probability(self, rows: NDArray[Any], scorer: str = "") -> NDArray[np.float64]:
        """Calibrated probability, shape (n,) from (n, F).

        Args:
            rows: raw features, columns as in :attr:`features`.
            scorer: name of one of :attr:`scorers`; empty: the chosen one.

        Raises:
            R2VError: if the router was saved without that scorer.
            ValueError: for another number of columns.
        """
        name = scorer or self.chosen
        if name not in self.scorers:
            raise R2VError(f"the router was trained without the scorer '{name}'; materialise 'router' again")
        return self.scorers[name].probability(self._checked(rows))

    def _checked(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        x = np.asarray(rows, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.features):
            raise ValueError(f"the router takes (n, {len(self.features)}) features, got {x.shape}")
        return x

    def threshold_at(self, rule: str, share: float) -> float:
        """The threshold that a share of the router split's steps exceeds, in whole per cent.

        Raises:
            R2VError: if the router was saved without thresholds for the rule.
        """
        if rule not in self.shares:
            raise R2VError(f"the router has no thresholds of '{rule}' for a share of calls; materialise 'router' again")
        return self.shares[rule][round(share * 100)]

    def save(self, directory: Path) -> None:
        """Write ``router.safetensors`` and ``router.json``; equal routers give equal bytes."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = {
            f"{name}.{i}.{key}": value.contiguous()
            for name, scorer in self.scorers.items()
            for i, net in enumerate(scorer.nets)
            for key, value in net.state_dict().items()
        }
        save_file(weights, directory / WEIGHTS_NAME)
        settings = {"version": VERSION} | vars(self)
        settings["scorers"] = {
            name: {"nets": [_form(net) for net in made.nets], "slope": made.slope, "level": made.level}
            for name, made in self.scorers.items()
        }
        text = json.dumps(settings, indent=2, sort_keys=True, allow_nan=False)
        write_atomic(directory / SETTINGS_NAME, text + "\n")

    @classmethod
    def load(cls, directory: Path) -> Router:
        """Read a saved router, ready to use.

        Raises:
            R2VError: if a file is missing, damaged, of another version, or does not fit the other.
        """
        path = directory / SETTINGS_NAME
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            weights = load_file(directory / WEIGHTS_NAME)
            version = settings.pop("version")
            if version == 1:
                settings, weights = _of_one_scorer(settings, weights)
            elif version not in (2, VERSION):  # of version 2, all learnt progress
                raise R2VError(f"{path}: version {version}, this code reads {VERSION}; materialise 'router' again")
            made = {}
            for name, scorer in settings.pop("scorers").items():
                forms = scorer.get("nets") or [{"hidden": hidden} for hidden in scorer["hidden"]]  # version 2
                nets = [_empty(form, len(settings["features"])) for form in forms]
                for i, net in enumerate(nets):
                    start = f"{name}.{i}."
                    net.load_state_dict({k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)})
                made[name] = Scorer([net.eval() for net in nets], scorer["slope"], scorer["level"])
            return cls(scorers=made, **settings)
        except FileNotFoundError as error:
            raise R2VError(f"no trained router at {directory} ({error}); materialise 'router' first") from None
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise R2VError(f"{directory}: not a readable router ({reason}); materialise 'router' again") from error


def _form(net: RouterNet | BoostedTrees) -> dict[str, list[int]]:
    return {"trees": net.size} if isinstance(net, BoostedTrees) else {"hidden": net.hidden}


def _empty(form: dict[str, list[int]], n_features: int) -> RouterNet | BoostedTrees:
    """A net or trees of a saved form, to load weights into."""
    if "trees" in form:
        trees, nodes = form["trees"]
        return BoostedTrees(trees, nodes)
    return RouterNet(n_features, form["hidden"], dropout=0.0)


def _of_one_scorer(settings: dict[str, Any], weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Version 1 held one net, calibrated by a temperature."""
    temperature, hidden = settings.pop("temperature"), settings.pop("hidden")
    scorer = {"hidden": [hidden], "slope": 1.0 / temperature, "level": 0.0}
    settings = settings | {"scorers": {"lagrangian": scorer}, "chosen": "lagrangian"}
    return settings, {f"lagrangian.0.{name}": value for name, value in weights.items()}
