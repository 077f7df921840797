"""Does calibration keep its promise? Whole calibrations on made-up tasks whose true risk is known.

    python benchmarks/certificates.py --draws 2000

Each draw takes n templates from a population, meets each in worlds of its own, goes down the thresholds as
``train_router`` does, and asks whether what was certified is true in the population. Tasks of a template are alike,
worlds have severities that all tasks share, and the risk does not rise steadily as the teacher is asked less. Printed
for each n: how often something false was certified (has to be ≤ δ), how often anything was certified, and the share of
steps handed to the teacher beside that of an oracle that knows the risks.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r2v_core.evaluation.certificates import Guarantee, Risk
from r2v_core.training.guarantee import LEVELS
from r2v_core.training.router_threshold import Played, descend

ALPHA = 0.2
SIZES = (20, 50, 100, 200, 400)


@dataclass(frozen=True)
class Population:
    """Made-up templates: how likely an episode fails at each level, given its template and its world."""

    hardness: tuple[float, float] = (0.6, 1.6)
    """Beta law of a template's difficulty."""
    spread: float = 0.5
    """Standard deviation of the logarithm of a world's severity."""
    tasks: int = 3
    worlds: int = 3
    teacher: float = 0.005
    """Failure rate of the teacher itself, in a world of severity 1."""

    def rates(self, hardness: NDArray[np.float64], severity: NDArray[np.float64], share: float) -> NDArray[np.float64]:
        """Failure probability of an episode at a level; arguments broadcast against each other."""
        bump = 0.1 * (0.65 < share < 0.75)  # one threshold does worse than the next cheaper one
        helped = share**0.7 * (1.0 - bump)
        return np.clip(severity * (self.teacher + (1.0 - helped) * 0.8 * hardness), 0.0, 1.0)

    def draw(self, n: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """N templates' difficulties and their worlds' severities, shapes (n,) and (n, worlds)."""
        shift = -(self.spread**2) / 2  # mean severity 1
        return random.beta(*self.hardness, n), np.exp(random.normal(shift, self.spread, (n, self.worlds)))

    def play(
        self, templates: tuple[NDArray[np.float64], NDArray[np.float64]], share: float, random: np.random.Generator
    ) -> Played:
        """What calibration sees at a level: the share of failed episodes of each template."""
        hardness, severity = templates
        rates = self.rates(hardness[:, None], severity, share)
        failed = random.random((self.tasks, *rates.shape)) < rates
        return Played(share, tuple(failed.mean(axis=(0, 2)).tolist()))

    def truth(self, share: float) -> tuple[float, float]:
        """Expected failure, and CVaR of the worlds' failure rates, by numbers large enough to count as exact."""
        random = np.random.default_rng(0)
        hardness = random.beta(*self.hardness, 1500)
        severity = np.exp(random.normal(-(self.spread**2) / 2, self.spread, 1500))
        by_world = self.rates(hardness[None, :], severity[:, None], share).mean(axis=1)
        return float(by_world.mean()), float(np.sort(by_world)[-round(ALPHA * len(by_world)) :].mean())


@dataclass(frozen=True)
class Outcome:
    """One calibration, and what is true of the level that it chose."""

    certified: bool
    cvar_certified: bool
    share: float
    risk: float
    cvar: float


def calibrations(
    population: Population, guarantee: Guarantee, n: int, draws: int, random: np.random.Generator
) -> list[Outcome]:
    """``draws`` calibrations with n templates each."""
    truth = {share: population.truth(share) for share in LEVELS}
    outcomes = []
    for _ in range(draws):
        templates = population.draw(n, random)
        play = lambda share, templates=templates: population.play(templates, share, random)  # noqa: E731
        level = descend([0.0] * 101, play, guarantee, ALPHA).level
        risk, cvar = truth[level.wanted]
        if guarantee.risk == "excess":
            risk -= truth[1.0][0]
        outcomes.append(Outcome(level.certified, level.cvar_certified, level.wanted, risk, cvar))
    return outcomes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--delta", type=float, default=0.1)
    args = parser.parse_args()
    population = Population()
    risks: tuple[Risk, ...] = ("failure", "excess")
    for risk in risks:
        guarantee = Guarantee(risk, args.epsilon, args.delta)
        base = population.truth(1.0)[0] if risk == "excess" else 0.0
        good = []
        for share in LEVELS:  # as the procedure: down to the first whose risk is above the bound
            if population.truth(share)[0] - base > args.epsilon:
                break
            good.append(share)
        oracle = good[-1] if good else 1.0
        print(f"{risk} ≤ {args.epsilon:g} with δ = {args.delta:g}; oracle share {oracle:.2f}; {args.draws} draws each")
        print("   n  false  certified  share  CVaR false  CVaR certified")
        for n in SIZES:
            found = calibrations(population, guarantee, n, args.draws, np.random.default_rng(n))
            certified = [o for o in found if o.certified]
            false = np.mean([o.certified and o.risk > args.epsilon for o in found])
            share = float(np.mean([o.share for o in certified])) if certified else float("nan")
            tail_false = np.mean([o.cvar_certified and o.cvar > args.epsilon for o in found])
            tail = np.mean([o.cvar_certified for o in found])
            cells = (f"{n:4}", f"{false:5.3f}", f"{len(certified) / len(found):9.2f}", f"{share:5.2f}")
            print("  ".join((*cells, f"{tail_false:10.3f}", f"{tail:14.2f}")))


if __name__ == "__main__":
    main()
