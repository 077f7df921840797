"""From frames to the sums of every method, and the draws that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from r2v_core.digest import rng
from r2v_core.evaluation.frame import Frames
from r2v_core.evaluation.metrics import Tally, tally
from r2v_core.evaluation.resampling import Resamples, draw
from r2v_core.results.bundles import Analysis
from r2v_core.results.naming import is_probabilistic, method_rank

Tallies = dict[tuple[str, str], dict[int, Tally]]
"""(method, condition) → partition seed → sums."""


def make_tallies(frames: Frames) -> Tallies:
    """The sums of every method, condition and partition seed."""
    keys = ["method", "condition", "seed"]
    steps = dict(iter(frames.steps.groupby(keys)))
    tallies: Tallies = {}
    for key, rows in frames.episodes.groupby(keys):
        method, condition, seed = key
        scored = steps.get(key, frames.steps.iloc[:0]) if is_probabilistic(method) else frames.steps.iloc[:0]
        found = tally(rows, scored)
        tallies.setdefault((str(method), str(condition)), {})[int(seed)] = found
    order = sorted(tallies, key=lambda key: (method_rank(key[0]), key[1]))
    return {key: tallies[key] for key in order}


def resamples_for(tallies: Mapping[int, Tally], analysis: Analysis) -> Resamples:
    """The draws for these sums; equal tasks and worlds get equal draws, so methods stay paired."""
    design = tuple((seed, t.templates, t.zs if t.worlds else ()) for seed, t in tallies.items())
    return _draw(design, analysis.bootstrap, analysis.confidence)


@lru_cache(maxsize=16)
def _draw(
    design: tuple[tuple[int, tuple[str, ...], tuple[int, ...]], ...], n_resamples: int, confidence: float
) -> Resamples:
    templates = {seed: names for seed, names, _ in design}
    worlds = {seed: zs for seed, _, zs in design}
    return draw(templates, worlds, n_resamples, confidence, rng("bootstrap over tasks"))
