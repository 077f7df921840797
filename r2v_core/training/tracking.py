"""Where curves and results go besides their files: TensorBoard always, Weights & Biases where it is asked for.

The environment variables of W&B (``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``), where set, win over the config.
"""

from __future__ import annotations

import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from r2v_core.config.schema import TrainingConfig
from r2v_core.errors import R2VError, nearest

TENSORBOARD = "tensorboard"
"""Folder of a run that ``tensorboard --logdir`` reads, also while the training runs."""
MODES = {"disabled": "disabled", "offline": "offline", "online": "online", "dryrun": "offline", "run": "online"}
"""Values of ``WANDB_MODE``; the last two are W&B's older names."""
_HOST = "https://api.wandb.ai"


@dataclass(frozen=True)
class Wandb:
    """How Weights & Biases is used."""

    mode: str = "disabled"
    project: str = "r2v"
    entity: str | None = None


def wandb_settings(training: TrainingConfig) -> Wandb:
    """What config and environment say about W&B, checked before any work.

    Raises:
        R2VError: for an unknown ``WANDB_MODE``, or for the mode 'online' without credentials.
    """
    asked = os.environ.get("WANDB_MODE") or training.wandb
    if asked not in MODES:
        raise R2VError(f"WANDB_MODE={asked}: use disabled, offline or online.{nearest(asked, MODES)}")
    mode = MODES[asked]
    if mode == "online" and not _has_credentials():
        raise R2VError(
            "training.wandb: online needs a login; run 'wandb login', or set WANDB_API_KEY (for a server of your own "
            "WANDB_BASE_URL too), or use offline (upload later with 'wandb sync') or disabled"
        )
    project = os.environ.get("WANDB_PROJECT") or training.wandb_project
    return Wandb(mode, project, os.environ.get("WANDB_ENTITY") or training.wandb_entity)


def _has_credentials() -> bool:
    """An API key or identity token in the environment, or what ``wandb login`` wrote into the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _HOST).netloc
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            entry = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if entry and entry[2]:
            return True
    return False


def start_wandb(settings: Wandb, run_id: str, group: str, folder: Path, config: dict[str, Any]) -> Any:
    """A W&B run with the id of the pipeline's; it sees neither code nor console output.

    Raises:
        R2VError: if W&B refuses.
    """
    import wandb

    quiet = wandb.Settings(silent=True, console="off", save_code=False, disable_git=True, disable_code=True)
    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            id=run_id,
            name=run_id,
            group=group,
            dir=str(folder),
            mode=settings.mode,
            resume="allow",
            config=config,
            settings=quiet,
        )
    except wandb.errors.Error as error:
        raise R2VError(f"training.wandb: {settings.mode}: W&B refused ({error}); use offline or disabled") from error
