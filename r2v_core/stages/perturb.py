"""Stage 2: the four perturbation families on the stored trajectories, several seeds z each."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("perturb")

from collections import Counter
from collections.abc import Iterator, Sequence

from r2v_core.perturbations import FAMILIES, make_noise, probabilities, seeds_for
from r2v_core.perturbations.apply import perturb_episode
from r2v_core.runs.jsonl import write_records
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.parquet import read_episodes
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.episodes import TRAJECTORIES, finish_episodes
from r2v_core.trajectory import Episode


def perturbed_copies(ctx: StageContext, episodes: Sequence[Episode], seeds: Sequence[int]) -> Iterator[Episode]:
    """Each episode under each of the seeds z, as a run of the stage's own."""
    noise = make_noise(ctx.config.perturbations)
    for n, episode in enumerate(episodes, start=1):
        for z in seeds:
            copy = perturb_episode(episode, noise, z)
            metadata = {**copy.metadata, "source_run_id": copy.metadata["run_id"], "run_id": ctx.spec.run_id}
            metadata["source_episode_id"] = episode.episode_id
            yield copy.model_copy(update={"metadata": metadata})
        ctx.report.progress("trajectories", n, len(episodes), copies=len(seeds))


def run(ctx: StageContext) -> StageResult:
    """Write a perturbed copy of every trajectory for every training seed z."""
    episodes = [episode for episode in read_episodes(ctx.inputs["trajectories"]) if episode.error is None]
    seeds = seeds_for("train", ctx.config.perturbations.seeds, ctx.seed)
    perturbed = list(perturbed_copies(ctx, episodes, seeds))
    write_records(ctx.run_dir / TRAJECTORIES, perturbed)
    fired = Counter(
        (record.family, record.operator)
        for episode in perturbed
        for step in episode.steps
        for record in step.perturbations
    )
    n_steps = sum(len(episode.steps) for episode in perturbed)
    write_atomic(ctx.run_dir / "preview.md", _preview(ctx, fired, n_steps, perturbed))
    result = finish_episodes(ctx, perturbed, preview="preview.md")
    touched = sum(bool(step.perturbations) for episode in perturbed for step in episode.steps)
    result.counts = {
        "seeds": len(seeds),
        "source_episodes": len(episodes),
        "share_of_steps_perturbed": touched / n_steps if n_steps else 0.0,
        **{f"fired_{family}_{operator}": n for (family, operator), n in sorted(fired.items())},
    }
    return result


def _preview(ctx: StageContext, fired: Counter[tuple[str, str]], n_steps: int, perturbed: Sequence[Episode]) -> str:
    lines = ["| family | operator | configured | observed per step |", "| --- | --- | ---: | ---: |"]
    for family in FAMILIES:
        for operator, probability in probabilities(getattr(ctx.config.perturbations, family).model_dump()).items():
            rate = fired[(family, operator)] / n_steps if n_steps else 0.0
            lines.append(f"| {family} | {operator} | {probability:.3f} | {rate:.3f} |")
    spread, held_out = ctx.config.perturbations.severity_spread, ctx.config.perturbations.held_out
    lines += ["", f"Severities of the worlds have a standard deviation of {spread:g}."]
    if held_out:
        lines += ["", f"Held out for the reported evaluation, so absent here: {', '.join(held_out)}."]
    changed = next((step for e in perturbed for step in e.steps if step.clean is not None), None)
    if changed is not None and changed.clean is not None:
        what = ", ".join(f"{record.family}/{record.operator}" for record in changed.perturbations)
        quoted = [text.replace("\n", "\n> ") for text in (changed.clean.text, changed.observation.text)]
        lines += ["", f"One step under {what}. Before:", "", f"> {quoted[0]}", "", "After:", "", f"> {quoted[1]}"]
    return "\n".join(lines) + "\n"
