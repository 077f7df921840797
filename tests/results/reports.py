"""Reports of made-up evaluations, and how their episodes are named in the page's address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from r2v_core.evaluation.frame import frames
from r2v_core.results import ResultsManager
from r2v_core.results.bundles import Analysis, make_bundles, write_bundle
from r2v_core.results.plotting import save
from r2v_core.results.report import render_report
from r2v_core.results.success_figures import frontier
from r2v_core.trajectory import Episode
from tests.results.chromium import Page

ANALYSIS = Analysis(cvar_alpha=0.25, bootstrap=20, confidence=0.95)
VARIANT = "without_verifier_features"
RULES = {"heuristic_router": "asks where entropy > 2.5 nats"}


def write_report(episodes: Sequence[Episode], folder: Path) -> Path:
    tables = frames(episodes)
    pairs = {(e.metadata["condition"], e.seed) for e in episodes}
    sources = {(condition, seed): (f"evaluate_{condition}_{seed}", "digest") for condition, seed in pairs}
    (folder / "structured_results").mkdir(parents=True)
    for bundle in make_bundles(tables, sources, {"experiment": "test <i>", "partition": "textworld:expert"}, ANALYSIS):
        ablation = "feature_groups" if bundle.method == VARIANT else ""
        write_bundle(bundle.model_copy(update={"ablation": ablation}), folder / "structured_results")
    results = ResultsManager(folder)
    save(frontier(results.evaluations, "noisy"), folder / "figures", "frontier_noisy")
    path = folder / "report.html"
    path.write_text(render_report(results, folder / "figures", episodes, RULES), encoding="utf-8")
    return path


def name_of(episode: Episode) -> str:
    z = episode.metadata["replicate"] if episode.perturbation_seed is None else episode.perturbation_seed
    meta = episode.metadata
    return "~".join(map(str, (meta["method"], meta["condition"], episode.seed, z, episode.task_id)))


def address(episode: Episode, **more: object) -> str:
    found = {"episode": name_of(episode), **more}
    return "#episodes?" + "&".join(f"{name}={quote(str(value))}" for name, value in found.items())


def open_name(page: Page) -> str:
    """The name of the open episode, as its facts spell it."""
    method = page.run("return document.getElementById('method').value")
    seed, condition, z = re.match(  # type: ignore[union-attr]
        r"seed (\d+) · (clean|noisy), (?:replicate|z) (\d+)", page.text("#situation")
    ).groups()
    return f"{method}~{condition}~{seed}~{z}~{page.text('#task')}"
