"""The engine ``transformers``: the model in this process, through the project's own batched sampler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2v_core.config.schema import Section, SLMConfig

if TYPE_CHECKING:
    from r2v_core.engines.transformers.sampler import Sampler


class Options(Section):
    """It has none: dtype, quantisation and attention are keys of ``slm``."""


def open_engine(slm: SLMConfig, options: Section, cache: Path, adapter: Path | None, logs: Path) -> Sampler:
    """Load the base model and merge the adapter into it, if one is given.

    Raises:
        R2VError: if the model or the adapter can't be loaded.
    """
    from r2v_core.engines.transformers.sampler import Sampler

    return Sampler.load(slm, cache, adapter)
