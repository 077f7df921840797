"""Tokenizers of several makers."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from r2v_core.models.hub import load_tokenizer
from tests.models import hub_tokenizers


@pytest.fixture(scope="session")
def tokenizers(real_slm, model_cache) -> dict[str, PreTrainedTokenizerBase]:
    """Real tokenizers with their real chat templates, by name."""
    found = {name: hub_tokenizers.load(name) for name in hub_tokenizers.PACKAGES}
    return found | {"smollm2": load_tokenizer(real_slm, model_cache)}
