"""The engine ``vllm``: a vLLM server, or any OpenAI-compatible one that tells log-probabilities.

*What* is sampled stands in the configuration, *where* in the environment variable :data:`WHERE`: the folder of an
environment that vLLM is installed in, which the stage starts a server from, or the address of a server that runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from r2v_core.config.schema import Positive, Section, SLMConfig

if TYPE_CHECKING:
    from r2v_core.engines.vllm.engine import Served

WHERE = "R2V_VLLM"
"""An environment's folder or a server's address; unset: ``.venv-vllm`` of the project, which ``make vllm`` makes."""


class Options(Section):
    """How a policy is served."""

    adapter: Literal["served", "merged"] = Field(
        "served", description="served: the LoRA adapter beside the base model; merged: into its weights, once"
    )
    served_as: str | None = Field(
        None, description="name under which a server at an address has the policy already; null: it is loaded there"
    )
    arguments: list[str] = Field(
        default_factory=list, description="further arguments of a server that the stage starts, as vLLM documents them"
    )
    gpu_memory: float = Field(
        0.6, gt=0, le=1, description="share of a GPU's memory for a server that the stage starts; a verifier needs some"
    )
    in_flight: Positive = Field(64, description="requests under way at once")
    start_s: float = Field(900.0, gt=0, description="time that a server may take to start, seconds")
    timeout_s: float = Field(600.0, gt=0, description="time that an answer may take, seconds")


def open_engine(slm: SLMConfig, options: Options, cache: Path, adapter: Path | None, logs: Path) -> Served:
    """Find or start a server, see that it is what is needed, and have it serve the model, with the adapter if any.

    Raises:
        R2VError: if there is neither environment nor server, or it can't serve this.
    """
    from r2v_core.engines.vllm.opening import opened

    return opened(slm, options, cache, adapter, logs)
