"""One entropy for all engines: what it is of distributions whose entropy is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r2v_core.models.entropy import TOP, clipped_entropies, clipped_entropy


@pytest.mark.parametrize("tokens", [1, 2, TOP - 1, TOP, TOP + 1, 1000])
def test_of_a_uniform_distribution_it_is_the_entropy_without_a_ceiling(tokens: int) -> None:
    row = [-math.log(tokens)] * tokens
    assert clipped_entropy(row) == pytest.approx(math.log(tokens), abs=1e-9)
    assert clipped_entropies(torch.tensor([row]))[0].item() == pytest.approx(math.log(tokens), abs=1e-5)


logits = st.lists(st.floats(-30, 30), min_size=2, max_size=60)


@given(logits)
def test_it_is_a_bound_from_below_and_the_two_forms_agree(values: list[float]) -> None:
    logp = torch.log_softmax(torch.tensor(values, dtype=torch.float64), -1)
    whole = -(logp.exp() * logp).sum().item()
    found = clipped_entropy(logp.tolist())
    assert 0 <= found <= whole + 1e-9
    assert found == pytest.approx(clipped_entropies(logp[None])[0].item(), abs=1e-9)
    told = sorted(logp.tolist(), reverse=True)[: TOP + 1]  # a server adds the sampled token to the likeliest
    assert clipped_entropy(told) == pytest.approx(found, abs=1e-9)


def test_what_lies_beyond_counts_as_the_last_that_counts() -> None:
    p = [0.04] * TOP + [0.002] * 100
    expected = -0.8 * math.log(0.04) - 0.2 * math.log(0.04)
    assert clipped_entropy(map(math.log, p)) == pytest.approx(expected)
