"""Do 95 % intervals hold the truth 95 times in a hundred? Whole tables on made-up tasks whose true rates are known.

    python benchmarks/intervals.py --repeats 1000

Each repeat draws templates, worlds and training seeds from a population, plays every template once in every world of
every seed with two methods, and asks whether the intervals that the tables would print hold what is true of the
population. The logit of success is a sum of effects of template, world and training, which both methods share in part.
Worlds are each seed's own, templates are shared. With one seed the truth is that of its training.

Printed for each design and population, with the mean half-width: how often the interval of the success rate holds its
truth, how often one over templates alone does, how often the paired interval of the difference does, and with one seed
that of CVaR (its truth is of the worlds that were met). "!" marks what holds it less than 93 % of the time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from r2v_core.evaluation.metrics import SUMMED, Tally, cvar_failure, metric_functions
from r2v_core.evaluation.resampling import Resamples, draw
from r2v_core.evaluation.statistics import Estimate, difference, estimate

Floats = NDArray[np.float64]

ALPHA, CONFIDENCE, WANTED = 0.2, 0.95, 0.93
METRICS = metric_functions(ALPHA)


@dataclass(frozen=True)
class Population:
    """Standard deviations of normal effects on the logit of success, of both methods together and of one alone."""

    template: float = 1.0
    world: float = 0.5
    seed: float = 0.4
    base: float = 0.5
    """Logit of success where all effects are 0."""
    gap: float = 0.5
    """How much lower the second method's is."""
    own: float = 0.5
    """Share of each effect's deviation that a method has of its own besides."""

    @property
    def given_seed(self) -> Population:
        """The same where there is nothing to training: what one seed's interval speaks of."""
        return replace(self, seed=0.0)

    def rate(self, method: int) -> float:
        """True success rate of a method (0 or 1)."""
        spread = np.sqrt(self.template**2 + self.world**2 + self.seed**2) * np.sqrt(1 + self.own**2)
        grid = norm.ppf((np.arange(4000) + 0.5) / 4000)
        return float(expit(self.base - self.gap * method + spread * grid).mean())

    def draw(self, seeds: int, templates: int, worlds: int, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Logits of success, shape (method, seed, template, world), and what templates add, (method, template)."""
        hard = self._effect(self.template, (1, templates, 1), random)
        rest = self._effect(self.world, (seeds, 1, worlds), random) + self._effect(self.seed, (seeds, 1, 1), random)
        base = np.array([self.base, self.base - self.gap])[:, None, None, None]
        return base + hard + rest, hard[:, 0, :, 0]

    def _effect(self, spread: float, shape: tuple[int, ...], random: np.random.Generator) -> Floats:
        """What both methods share and what each has of its own; shape (method, *shape)."""
        return spread * (random.normal(size=shape) + self.own * random.normal(size=(2, *shape)))

    def world_rates(self, levels: Floats) -> Floats:
        """True success rates of worlds that were met, over all templates there are.

        Args:
            levels: logits there of a template without an effect, shape (worlds,).
        """
        grid = self.template * np.sqrt(1 + self.own**2) * norm.ppf((np.arange(400) + 0.5) / 400)
        rates: Floats = expit(grid[:, None] + levels).mean(axis=0)
        return rates


def tally_of(success: Floats, seed: int, shared_worlds: bool = True) -> Tally:
    """Sums of one episode a template and world; ``success`` has shape (templates, worlds)."""
    nothing = np.zeros_like(success)
    names = tuple(f"t{i:03d}" for i in range(len(success)))
    zs = tuple(seed * 1000 + i for i in range(success.shape[1]))
    sums = dict.fromkeys(SUMMED, nothing) | {"success": success}
    bins = np.zeros((len(success), 10, 3))
    return Tally(names, names, zs, shared_worlds, np.ones_like(success), sums, nothing, nothing, bins)


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

    def add(self, found: Estimate, truth: float) -> None:
        """One more interval."""
        self.held += found.low <= truth <= found.high
        self.width += found.high - found.low
        self.n += 1

    def __str__(self) -> str:
        if not self.n:
            return "–"
        share = self.held / self.n
        return f"{share:.3f}{'!' if share < WANTED else ' '} ±{self.width / self.n / 2:.3f}"


def coverage(
    population: Population, seeds: int, templates: int, worlds: int, repeats: int, resamples: int
) -> dict[str, Count]:
    """Coverage of the intervals of one design; with one seed, of what is true given that training.

    Returns:
        'success', 'templates only', 'difference' and, with one seed, 'CVaR'.
    """
    truth = population if seeds > 1 else population.given_seed
    rates = truth.rate(0), truth.rate(1)
    found = {name: Count() for name in ("success", "templates only", "difference", "CVaR")}
    random = np.random.default_rng([seeds, templates, worlds])
    for _ in range(repeats):
        logits, hard = truth.draw(seeds, templates, worlds, random)
        success = (random.random(logits.shape) < expit(logits)).astype(float)
        first, second = ({s: tally_of(one, s) for s, one in enumerate(side)} for side in success)
        drawn = resamples_of(first, resamples, random)
        found["success"].add(estimate(first, METRICS["success_rate"], drawn), rates[0])
        found["difference"].add(difference(first, second, METRICS["success_rate"], drawn), rates[0] - rates[1])
        mean = {0: tally_of(success[0].mean(axis=0), 0, shared_worlds=False)}  # seeds averaged, worlds as they are
        alone = resamples_of(mean, resamples, random)
        found["templates only"].add(estimate(mean, METRICS["success_rate"], alone), rates[0])
        if seeds == 1:
            met = truth.world_rates(logits[0, 0, 0] - hard[0, 0])
            found["CVaR"].add(estimate(first, METRICS["cvar_failure"], drawn), float(cvar_failure(met, ALPHA)))
    return found


CASES = {
    "all differ": Population(),
    "worlds alike": Population(world=0.0),
    "templates alike": Population(template=0.0, world=0.7),
    "nothing differs": Population(template=0.0, world=0.0, seed=0.0),
    "success near 1": Population(base=3.0),
    "trainings differ much": Population(template=0.5, seed=1.0),
}
DESIGNS = ((1, 12, 20), (1, 12, 3), (1, 50, 20), (2, 12, 20), (3, 12, 20), (5, 12, 20))


def rows(repeats: int, resamples: int) -> Iterator[tuple[str, ...]]:
    """The table's rows, one after the other."""
    for seeds, templates, worlds in DESIGNS:
        for name, population in CASES.items():
            if seeds == 1 and name == "trainings differ much":
                continue
            found = coverage(population, seeds, templates, worlds, repeats, resamples)
            yield (f"{seeds}", f"{templates} × {worlds}", name, *(str(count) for count in found.values()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="made-up tables for each row (default: 300)")
    parser.add_argument("--resamples", type=int, default=1000, help="draws for each interval (default: 1000)")
    args = parser.parse_args()
    print("| seeds | templates × worlds | population | success | templates only | difference | CVaR |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    low = 0
    for row in rows(args.repeats, args.resamples):
        print("| " + " | ".join(row) + " |", flush=True)
        low += any("!" in cell for cell in (row[3], row[5], row[6]))
    if low:
        print(f"warning: {low} rows have an interval that holds the truth less than {WANTED:.0%} of the time (!)")


if __name__ == "__main__":
    main()
