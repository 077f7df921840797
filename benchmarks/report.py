"""How long the report takes to write, to open and to browse with thousands of episodes, in a real headless Chromium.

    python benchmarks/report.py outputs/mrp/evaluate_noisy/<run_id>                     5,000 episodes
    python benchmarks/report.py outputs/mrp/evaluate_noisy/<run_id> --episodes 20000

The episodes are the run's own, played again under further perturbation seeds as far as the page can tell: every copy
has its own seed, and one word in seven of what it saw is another word, so that copies don't compress to nothing.
Seconds; the median of the repeats where something is done more than once. Needs chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.evaluation.frame import frames
from r2v_core.results import ResultsManager
from r2v_core.results.bundles import Analysis, make_bundles, write_bundle
from r2v_core.results.plotting import save
from r2v_core.results.report import render_report
from r2v_core.results.success_figures import frontier
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.trajectory import Episode, Observation
from tests.results.chromium import Page, chromium

CHANGED = 1 / 7
"""Share of words that differ between two copies of an observation."""
ANALYSIS = Analysis(cvar_alpha=0.2, bootstrap=100, confidence=0.95)

DRAWN = """
const [act, done] = [arguments[0], arguments[arguments.length - 1]];
const began = performance.now();
const view = document.getElementById('view-episodes');
const wait = () => view.getAttribute('aria-busy') === 'false'
  ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)))
  : setTimeout(wait, 1);
if (act.key) document.dispatchEvent(new KeyboardEvent('keydown', { key: act.key, bubbles: true }));
if (act.select) {
  const node = document.getElementById(act.select);
  node.value = act.value;
  node.dispatchEvent(new Event('change'));
}
if (act.row !== undefined) {
  const list = document.getElementById('list');
  list.scrollTop = act.row * list.scrollHeight;
  requestAnimationFrame(() => { list.querySelector('.item:last-child').click(); wait(); });
} else {
  wait();
}
"""


def copies(episodes: list[Episode], wanted: int) -> Iterator[Episode]:
    """At least ``wanted`` episodes."""
    draws = random.Random(0)
    words = sorted({word for e in episodes for step in e.steps for word in step.observation.text.split()})

    def changed(text: str) -> str:
        return " ".join(draws.choice(words) if draws.random() < CHANGED else word for word in text.split(" "))

    for copy in range(-(-wanted // len(episodes))):
        seen: dict[tuple[str, int, str], str] = {}  # methods that see the same text still see the same text
        for e in episodes:
            z = (e.perturbation_seed or 0) * 1000 + copy
            steps = []
            for step in e.steps:
                key = (e.task_id, z, step.observation.state)
                state = seen.setdefault(key, changed(step.observation.state))
                shown = Observation(state=state, feedback=step.observation.feedback)
                steps.append(step.model_copy(update={"observation": shown, "clean": step.clean or step.observation}))
            yield e.model_copy(update={"perturbation_seed": z, "steps": steps})


def timed(page: Page, **act: object) -> float:
    """Seconds from an action of the reader until two frames after everything is drawn."""
    return float(page.driver.execute_async_script(DRAWN, act)) / 1000


def main() -> None:
    """Write, open, browse; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run of evaluate_noisy")
    parser.add_argument("--episodes", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    manifest = read_manifest(args.run)
    stored = list(read_parquet(args.run / manifest.artifacts["episodes"], Episode))
    many = list(copies(stored, args.episodes))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "structured_results").mkdir()
        source = {("noisy", manifest.seed): (manifest.run_id, manifest.digest)}
        for bundle in make_bundles(frames(many), source, {"experiment": "benchmark"}, ANALYSIS):
            write_bundle(bundle, folder / "structured_results")
        results = ResultsManager(folder)
        save(frontier(results.evaluations, "noisy"), folder / "figures", "frontier_noisy")
        _ = results.summary, results.all_frames  # statistics are not what is measured
        began = time.perf_counter()
        path = folder / "report.html"
        path.write_text(render_report(results, folder / "figures", many), encoding="utf-8")
        rows = [("write the page", time.perf_counter() - began)]
        steps = sum(len(e.steps) for e in many)
        with chromium(folder / "profile") as driver:
            page = Page(driver, path)
            began = time.perf_counter()
            page.open()
            rows.append(("open the report", time.perf_counter() - began))
            began = time.perf_counter()
            page.open("#episodes")
            rows.append(("open it at the first episode", time.perf_counter() - began))
            draws = random.Random(1)
            values = [e.metadata["method"] for e in draws.choices(many, k=args.repeats)]
            filters = [timed(page, select="filter-method", value=value) for value in values]
            page.open("#episodes")
            opened = [timed(page, row=draws.random()) for _ in range(args.repeats)]
            compared = [timed(page, key="c") for _ in range(args.repeats)]
            stepped = [timed(page, key=key) for key in ("ArrowRight", "ArrowLeft") * args.repeats]
            for name, found in (
                ("set a filter", filters),
                ("open an episode anywhere in the list", opened),
                ("compare with the next method", compared),
                ("next or previous step", stepped),
            ):
                rows.append((name, statistics.median(found)))
        print(
            f"{len(many):,} episodes, {steps:,} steps, {path.stat().st_size / 1e6:.1f} MB, "
            f"Chromium {driver.capabilities['browserVersion']}"
        )
        print("\n| | seconds |\n| --- | ---: |")
        for name, seconds in rows:
            print(f"| {name} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
