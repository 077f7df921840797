"""Do 95 % intervals hold the truth 95 times in a hundred? Whole tables on made-up tasks whose true rates are known.

    python benchmarks/intervals.py --repeats 1000

Each repeat draws templates, worlds and training seeds from a population, plays every template once in every world of
every seed with two methods, and asks whether the intervals that the tables would print hold what is true of the
population. The logit of success is a sum of effects of template, world and training, which both methods share in part.
Worlds are each seed's own, templates are shared. With one seed the truth is that of its training.

Two kinds of designs are simulated. In the second ("2 each", alone with ``--dealt``) templates are each seed's own,
too, in four families, and each meets the two worlds that ``r2v_core/stages/design.py`` deals it. There two rules are
swept besides, at three shares between the small model alone and the teacher alone.

Printed for each design and population, with the mean half-width: how often the interval of the success rate holds its
truth, how often one over templates alone does, how often the paired interval of the difference does, with one seed
that of CVaR (its truth is of the worlds that were met), and with swept rules the paired interval of the difference of
their areas over cost. "!" marks what holds it less than 93 % of the time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.made_up import END_COSTS, Floats, Point, Population, deal, sweep, tally_of
from r2v_core.evaluation.metrics import Tally, cvar_failure, metric_functions
from r2v_core.evaluation.resampling import Resamples, draw, resampled
from r2v_core.evaluation.statistics import Estimate, difference, estimate, interval
from r2v_core.results.frontier import cost_area

ALPHA, CONFIDENCE, WANTED = 0.2, 0.95, 0.93
METRICS = metric_functions(ALPHA)


def resamples_of(tallies: dict[int, Tally], n: int, random: np.random.Generator) -> Resamples:
    """Draws for these sums."""
    templates = {seed: tally.templates for seed, tally in tallies.items()}
    worlds = {seed: tally.zs if tally.worlds else () for seed, tally in tallies.items()}
    return draw(templates, worlds, n, CONFIDENCE, random)


@dataclass
class Count:
    """How often an interval held the truth, and how wide it was."""

    held: int = 0
    width: float = 0.0
    n: int = 0

    def add(self, low: float, high: float, truth: float) -> None:
        """One more interval."""
        self.held += low <= truth <= high
        self.width += high - low
        self.n += 1

    def __str__(self) -> str:
        if not self.n:
            return "–"
        share = self.held / self.n
        return f"{share:.3f}{'!' if share < WANTED else ' '} ±{self.width / self.n / 2:.3f}"


NAMES = ("success", "templates only", "difference", "CVaR", "area")


def coverage(
    population: Population, seeds: int, templates: int, worlds: int, repeats: int, resamples: int, dealt: int = 0
) -> dict[str, Count]:
    """Coverage of the intervals of one design; with one seed, of what is true given that training.

    Args:
        population: what is true.
        seeds: training seeds.
        templates: templates of a seed; where worlds are dealt each seed's own, else shared.
        worlds: worlds of a seed.
        repeats: made-up tables.
        resamples: draws for each interval.
        dealt: worlds that a template meets; 0 for all, without a sweep.

    Returns:
        Of each of :data:`NAMES`; nothing is counted for 'CVaR' with several seeds, and for 'area' without a sweep.
    """
    truth = population if seeds > 1 else population.given_seed
    rates = [truth.rate(level) for level in truth.levels(False)]
    lead = truth.true_area(0) - truth.true_area(1)
    found = {name: Count() for name in NAMES}
    random = np.random.default_rng([seeds, templates, worlds, *([dealt] if dealt else [])])
    for _ in range(repeats):
        logits, hard = truth.draw(seeds, templates, worlds, random, own=dealt > 0)
        met = [deal(templates, worlds, dealt, int(random.integers(2**31)) if dealt else 0) for _ in range(seeds)]
        prefix = [f"s{s}t" if dealt else "t" for s in range(seeds)]
        success = (random.random(logits.shape) < expit(logits)) * np.array(met)
        first, second = (
            {s: tally_of(one, s, met=met[s], prefix=prefix[s]) for s, one in enumerate(side)} for side in success[:2]
        )
        drawn = resamples_of(first, resamples, random)
        _add(found["success"], estimate(first, METRICS["success_rate"], drawn), rates[0])
        _add(found["difference"], difference(first, second, METRICS["success_rate"], drawn), rates[0] - rates[1])
        if dealt:  # templates are all different
            mean = {0: tally_of(success[0].reshape(-1, worlds), 0, False, np.array(met).reshape(-1, worlds))}
        else:  # seeds averaged, worlds as they are
            mean = {0: tally_of(success[0].mean(axis=0), 0, shared_worlds=False)}
        _add(
            found["templates only"],
            estimate(mean, METRICS["success_rate"], resamples_of(mean, resamples, random)),
            rates[0],
        )
        if seeds == 1:
            levels = logits[0, 0, 0] - hard[0, 0, 0]
            tail = float(cvar_failure(truth.world_rates(levels), ALPHA))
            _add(found["CVaR"], estimate(first, METRICS["cvar_failure"], drawn), tail)
        if dealt:
            swept = [sweep(logits, hard, method, met, prefix, random) for method in (0, 1)]
            found["area"].add(*area_lead(success, swept, met, prefix, drawn), lead)
    return found


def _add(count: Count, found: Estimate, truth: float) -> None:
    count.add(found.low, found.high, truth)


def area_lead(
    success: Floats, swept: list[list[Point]], met: list[Floats], prefix: list[str], drawn: Resamples
) -> tuple[float, float]:
    """The paired interval of how much larger the first rule's area over cost is; both share the sweep's ends."""
    ends = [
        {s: tally_of(side[s], s, True, met[s], cost * met[s], prefix[s]) for s in range(len(met))}
        for side, cost in zip(success[2:], END_COSTS, strict=True)
    ]
    values, draws = [], []
    for points in swept:
        cost, won = (
            [resampled(point, METRICS[name], drawn) for point in (*ends, *points)]
            for name in ("avg_cost", "success_rate")
        )
        costs, successes = (np.array([[value.mean()] for value, _ in column]) for column in (cost, won))
        values.append(float(cost_area(costs, successes, (0, 1))[0]))
        costs, successes = (np.stack([again for _, again in column]) for column in (cost, won))
        draws.append(cost_area(costs, successes, (0, 1)))
    return interval(values[0] - values[1], draws[0] - draws[1], drawn, bounds=(-1.0, 1.0))


CASES = {
    "all differ": Population(),
    "worlds alike": Population(world=0.0),
    "templates alike": Population(template=0.0, world=0.7),
    "nothing differs": Population(template=0.0, world=0.0, seed=0.0),
    "success near 1": Population(base=3.0),
    "trainings differ much": Population(template=0.5, seed=1.0),
}
DESIGNS = ((1, 12, 20, 0), (1, 12, 3, 0), (1, 50, 20, 0), (2, 12, 20, 0), (3, 12, 20, 0), (5, 12, 20, 0))
DEALT = ((1, 100, 20, 2), (3, 100, 20, 2), (5, 100, 20, 2))
"""Seeds, templates, worlds, worlds a template (0: all)."""


def rows(designs: Sequence[tuple[int, int, int, int]], repeats: int, resamples: int) -> Iterator[tuple[str, ...]]:
    """The table's rows, one after the other."""
    for seeds, templates, worlds, dealt in designs:
        for name, population in CASES.items():
            if seeds == 1 and name == "trainings differ much":
                continue
            found = coverage(population, seeds, templates, worlds, repeats, resamples, dealt)
            design = f"{templates} × {worlds}{f', {dealt} each' if dealt else ''}"
            yield (f"{seeds}", design, name, *(str(count) for count in found.values()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="made-up tables for each row (default: 300)")
    parser.add_argument("--resamples", type=int, default=1000, help="draws for each interval (default: 1000)")
    parser.add_argument(
        "--dealt", action="store_true", help="only designs in which a template meets some of the worlds"
    )
    args = parser.parse_args()
    print("| seeds | templates × worlds | population | success | templates only | difference | CVaR | area over cost |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    low = 0
    for row in rows(DEALT if args.dealt else (*DESIGNS, *DEALT), args.repeats, args.resamples):
        print("| " + " | ".join(row) + " |", flush=True)
        low += any("!" in cell for cell in (row[3], *row[5:]))
    if low:
        print(f"warning: {low} rows have an interval that holds the truth less than {WANTED:.0%} of the time (!)")


if __name__ == "__main__":
    main()
