"""Success in each world where tasks met different worlds: adjusted for which tasks a world happened to have.

Where every task met every world, a world's success rate is the share of its episodes that succeeded. Where tasks are
dealt to worlds (``evaluation.worlds_per_template``), a world that got hard tasks would look like a bad world. Success
is then taken as task effect + world effect, both estimated together by least squares (the intra-block analysis of an
incomplete block design, Yates 1940, with tasks as blocks), and a world's rate is what it would be if all tasks had met
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def world_rates(success: Floats, episodes: Floats, tasks: Floats) -> Floats:
    """Success rate of each world, adjusted for its tasks unless every task met all worlds equally often.

    With weights w_t, counts n_tz, sums y_tz and r_t = Σ_z n_tz, the world effects β solve the reduced normal equations
    (diag(Σ_t w_t n_tz) − Σ_t w_t n_t n_tᵀ / r_t) β = Σ_t w_t (y_t − n_t ȳ_t), and the rate of world z is the mean over
    tasks of ȳ_t − Σ_z' n_tz' β_z' / r_t, plus β_z; cut to [0, 1]. A complete design gives plain rates.

    Args:
        success: sums of successes, shape (tasks, |Z|).
        episodes: numbers of episodes, the same shape.
        tasks: weights of the tasks, shape (B, tasks).

    Returns:
        Shape (B, |Z|); NaN for a world that no weighted task met.
    """
    met = tasks @ episodes
    if not incomplete(episodes):
        with np.errstate(invalid="ignore", divide="ignore"):
            plain: Floats = tasks @ success / met
        return plain
    rounds = episodes.sum(axis=1)
    share, mean = episodes / rounds[:, None], success.sum(axis=1) / rounds
    products = np.einsum("tz,tv->tzv", episodes, share).reshape(len(episodes), -1)
    n = episodes.shape[1]
    matrix = -(tasks @ products).reshape(-1, n, n)
    matrix[:, range(n), range(n)] += met
    effects = np.einsum(
        "bzv,bv->bz", np.linalg.pinv(matrix, hermitian=True), tasks @ (success - episodes * mean[:, None])
    )
    weight = tasks * rounds
    level = ((weight @ mean) - np.einsum("bt,tz,bz->b", weight, share, effects)) / weight.sum(axis=1)
    rates = np.clip(level[:, None] + effects, 0.0, 1.0)
    rates[met == 0] = np.nan
    return rates


def incomplete(episodes: Floats) -> bool:
    """Whether some task met one world more often than another; ``episodes`` of shape (tasks, |Z|)."""
    return bool((episodes != episodes[:, :1]).any())


def dealt_anew(met: NDArray[np.bool_], random: np.random.Generator, times: int) -> NDArray[np.intp]:
    """Columns in random order, each row's own, among those that the row met; the others stay where they are.

    Args:
        met: shape (tasks, |Z|).
        random: source of randomness.
        times: how often they are dealt.

    Returns:
        Shape (times, tasks, |Z|).
    """
    draws = random.random((times, *met.shape))
    places = np.where(met, np.arange(met.shape[1]), np.inf)
    to, origin = places.argsort(axis=1, kind="stable"), np.where(met, draws, np.inf).argsort(axis=2, kind="stable")
    moved = np.take_along_axis(met, to, axis=1)
    order = np.empty(draws.shape, dtype=np.intp)
    np.put_along_axis(order, np.broadcast_to(to, order.shape), np.where(moved, origin, to), axis=2)
    return order
