"""The registry against the way it replaced: a JSON index, and Python reading every JSONL line.

    python benchmarks/registry.py                                     10³, 10⁴ and 10⁵ episodes, some minutes
    python benchmarks/registry.py --sizes 1000 10000 100000 1000000   10⁶ too; needs 12 GB of disk

Each measurement runs in a process of its own: seconds from the call to its answer (imports excluded), and the peak of
the process's resident memory. Old and new alternate, so that both meet the same machine; the median of the repeats is
reported. Files are in the page cache for both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

STEPS = 8
DUPLICATES = 0.2
"""Share of episodes that repeat another run's action sequence."""
WORDS = ["lamp", "table", "door", "key", "apple", "fridge", "north", "south", "closed", "open", "kitchen", "hall"]


def make_project(project: Path, n_episodes: int, n_runs: int = 50) -> None:
    """Runs with ``n_episodes`` episodes of 8 steps in all (about 4 kB each), and the old JSON index."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(500)]
    index = {}
    for r in range(n_runs):
        run_id = f"textworld_env_expert_202601{r // 24 + 1:02d}T{r % 24:02d}0000"
        directory = project / "data" / "runs" / run_id
        directory.mkdir(parents=True)
        n = n_episodes // n_runs
        wins = 0
        with (directory / "trajectories.jsonl").open("w", encoding="utf-8") as out:
            for i in range(n):
                number = rng.randrange(max(r * n, 1)) if rng.random() < DUPLICATES and r else r * n + i
                episode = make_episode(run_id, i, number, rng, texts)
                wins += episode["success"]
                out.write(json.dumps(episode, ensure_ascii=False) + "\n")
        manifest = {
            "run_id": run_id, "stage": "collect", "benchmark": "textworld", "provider": "env", "model": "expert",
            "seed": r % 5, "partition": f"textworld:expert|{r % 5}", "status": "done",
            "created_at": f"2026-01-{r // 24 + 1:02d}T{r % 24:02d}:00:00+00:00", "output_dir": f"data/runs/{run_id}",
            "n_episodes": n, "n_success": wins, "n_steps": n * STEPS,
            "artifacts": {"trajectories": "trajectories.jsonl"},
            "config": {"slm": {"model": "smollm2-135m-instruct"}}, "tags": ["bench"],
        }  # fmt: skip
        (directory / "run_manifest.json").write_text(json.dumps(manifest))
        index[run_id] = {k: manifest[k] for k in ("run_id", "benchmark", "provider", "model", "status", "output_dir")}
    (project / "data" / "registry.json").write_text(json.dumps(index))


def make_episode(run_id: str, i: int, number: int, rng: random.Random, texts: list[str]) -> dict[str, Any]:
    """One episode; ``number`` decides its actions."""
    steps = [
        {
            "index": k,
            "observation": {"state": texts[rng.randrange(500)], "feedback": "You take the apple from the table."},
            "action": f"take object {number} step {k}",
            "actor": "teacher", "progress": True, "remaining": STEPS - k, "expert_action": "open door",
            "alternatives": {"go north": False, "take key": True}, "tokens_in": 200, "tokens_out": 5, "cost": 50.0,
        }
        for k in range(STEPS)
    ]  # fmt: skip
    return {
        "episode_id": f"e{i}", "benchmark": "textworld", "task_id": f"task-{i % 97}",
        "template_id": f"template-{i % 13}",
        "goal": "eat the apple", "steps": steps, "success": i % 3 > 0, "score": 1.0, "seed": 1,
        "metadata": {"run_id": run_id, "teacher_provider": "env", "teacher_model": "expert", "split": "train"},
    }  # fmt: skip


# --- the old way -------------------------------------------------------------------------------------------------


def old_unique(project: Path, output: Path | None = None) -> int:
    """Read every line of every run, keep the first of equal action sequences, write it where asked to."""
    index = json.loads((project / "data" / "registry.json").read_text())
    seen = set()
    out = output.open("w", encoding="utf-8") if output else None
    for run in index.values():
        with (project / run["output_dir"] / "trajectories.jsonl").open(encoding="utf-8") as handle:
            for line in handle:
                episode = json.loads(line)
                actions = json.dumps([step["action"] for step in episode["steps"]], ensure_ascii=False)
                key = hashlib.sha256(actions.encode()).hexdigest()
                if key not in seen:
                    seen.add(key)
                    if out:
                        out.write(json.dumps(episode, ensure_ascii=False) + "\n")
    if out:
        out.close()
    return len(seen)


# --- measurements: each prepares (not timed) and returns what is timed ---------------------------------------------


def measurement(name: str, project: Path) -> Callable[[], Any]:
    """The timed part of a measurement."""
    if name == "old_count":
        return lambda: old_unique(project)
    if name == "old_merge":
        return lambda: old_unique(project, project / "old_merged.jsonl")
    import duckdb  # noqa: F401  (imports are not timed)
    import numpy  # noqa: F401
    import pandas  # noqa: F401  (pyarrow imports it when it makes its first table)
    import pyarrow  # noqa: F401

    from r2v_core.registry import DataRegistry

    registry = DataRegistry(project)
    if name == "new_count":
        registry.query()  # an engine is started once a process (15 ms)
        return registry.count_unique
    if name in ("new_merge", "new_merge_parquet"):
        ids = [run.run_id for run in registry.query(stage="collect")]
        output = project / ("new_merged.jsonl" if name == "new_merge" else "new_merged.parquet")
        return lambda: registry.merge_runs(ids, output).n_episodes
    if name == "new_register":
        directory = project / "data" / "runs" / "extra"
        return lambda: registry.register(directory).n_episodes
    if name == "new_query":
        registry.query()
        return lambda: len(registry.query(benchmark="textworld", status="done", tag="bench"))
    if name == "new_rebuild":
        return lambda: registry.rebuild(["data/runs"]).n_episodes
    raise SystemExit(f"unknown measurement {name}")


def measure(name: str, project: Path) -> dict[str, float]:
    """Run a measurement in a process of its own: seconds, peak memory in MB, and its answer."""
    command = [sys.executable, __file__, "--measure", name, "--project", str(project)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def _measure_here(name: str, project: Path) -> None:
    act = measurement(name, project)
    began = time.perf_counter()
    answer = act()
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "memory_mb": memory, "answer": answer}))


def median(results: list[dict[str, float]]) -> dict[str, float]:
    """The result with the median time, with the highest memory of all."""
    middle = sorted(results, key=lambda result: result["seconds"])[len(results) // 2]
    return middle | {"memory_mb": max(result["memory_mb"] for result in results)}


def bench_size(n: int, repeats: int, work: Path) -> dict[str, dict[str, float]]:
    """All measurements at one size."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        project = Path(folder)
        make_project(project, n)
        results = {"new_rebuild": measure("new_rebuild", project)}
        names = ("old_count", "new_count", "old_merge", "new_merge")
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                rounds[name].append(measure(name, project))
        results |= {name: median(found) for name, found in rounds.items()}
        new, old = project / "new_merged.jsonl", project / "old_merged.jsonl"
        assert results["new_count"]["answer"] == results["old_count"]["answer"], "both ways count the same"
        assert _same(old, new), "both ways write the same episodes in the same order"
        results["new_merge"]["file_mb"] = new.stat().st_size / 1e6
        _extra_run(project)
        results["new_register"] = median([_register_anew(project) for _ in range(repeats)])
        return results


def _same(old: Path, new: Path) -> bool:
    with old.open() as a, new.open() as b:
        return all(x == y for x, y in zip(a, b, strict=True))


def _extra_run(project: Path, n: int = 2000) -> None:
    from r2v_core.runs.manifest import RunManifest, write_manifest

    directory = project / "data" / "runs" / "extra"
    directory.mkdir()
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(500)]
    with (directory / "trajectories.jsonl").open("w") as out:
        for i in range(n):
            out.write(json.dumps(make_episode("extra", i, 10**9 + i, rng, texts)) + "\n")
    manifest = RunManifest(
        run_id="extra", stage="extra", benchmark="textworld", provider="env", model="expert", seed=1,
        partition="textworld:expert|1", status="done", created_at="2026-02-01T00:00:00+00:00", output_dir="",
    )  # fmt: skip
    write_manifest(manifest, directory)


def _register_anew(project: Path) -> dict[str, float]:
    """Register the run of 2,000 episodes after it was taken out again."""
    from r2v_core.registry.database import write
    from r2v_core.registry.schema import TABLES

    with write(project / "data" / "registry.duckdb") as con:
        for table in TABLES:
            con.execute(f"DELETE FROM {table} WHERE run_id = 'extra'")
    return measure("new_register", project)


def bench_query(work: Path, repeats: int) -> dict[str, float]:
    """``query`` over 10,000 runs."""
    from r2v_core.registry.database import write

    with tempfile.TemporaryDirectory(dir=work) as folder:
        project = Path(folder)
        make_project(project, 50)
        measure("new_rebuild", project)
        with write(project / "data" / "registry.duckdb") as con:
            con.execute("INSERT INTO runs SELECT runs.* REPLACE (run_id || i AS run_id) FROM runs, range(199) AS r(i)")
        return median([measure("new_query", project) for _ in range(max(repeats, 5))])


def report(results: dict[int, dict[str, dict[str, float]]], query: dict[str, float], load: tuple[float, float]) -> str:
    """The tables, in Markdown; ``load`` is the lowest and highest load average while it ran."""
    lines = [
        f"{platform.system()}, {os.cpu_count()} cores (load average during the run {load[0]:.1f} to {load[1]:.1f}), "
        f"Python {platform.python_version()}. Episodes of {STEPS} steps in 50 runs, {DUPLICATES:.0%} duplicates. Times "
        "in seconds, peak memory in MB.",
        "",
        "| episodes | count distinct, old | count distinct, new | speed-up | merge, old | merge, new | speed-up "
        "| peak memory, old | peak memory, new | register 2,000 more | rebuild |",
        "| ---: " * 11 + "|",
    ]
    for n, r in sorted(results.items()):
        count = r["old_count"]["seconds"] / r["new_count"]["seconds"]
        merge = r["old_merge"]["seconds"] / r["new_merge"]["seconds"]
        lines.append(
            f"| {n:,} | {r['old_count']['seconds']:.3f} | {r['new_count']['seconds']:.4f} | {count:,.0f} × "
            f"| {r['old_merge']['seconds']:.3f} | {r['new_merge']['seconds']:.4f} | {merge:,.0f} × "
            f"| {r['old_merge']['memory_mb']:.0f} "
            f"| {max(r['new_merge']['memory_mb'], r['new_count']['memory_mb']):.0f} "
            f"| {r['new_register']['seconds']:.2f} | {r['new_rebuild']['seconds']:.1f} |"
        )
    largest, found = max((n, r["new_merge"]) for n, r in results.items())
    speed = found["file_mb"] / found["seconds"]
    lines += [
        "",
        f"The merge of {largest:,} episodes wrote {found['file_mb']:,.0f} MB at {speed:,.0f} MB/s; a file that "
        "outgrows the page cache is written at the disk's speed.",
    ]
    lines += ["", f"`query` over 10,000 runs ({query['answer']:,.0f} found): {query['seconds'] * 1e3:.1f} ms."]
    return "\n".join(lines) + "\n"


def plot(results: dict[int, dict[str, dict[str, float]]], path: Path) -> None:
    """Log-log plot of seconds against episodes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    sizes = sorted(results)
    series = (
        ("old_merge", "merge, old", "C1-o"),
        ("old_count", "count unique, old", "C1--s"),
        ("new_rebuild", "rebuild", "C2-^"),
        ("new_register", "register 2,000 more", "C2--v"),
        ("new_merge", "merge", "C0-o"),
        ("new_count", "count unique", "C0--s"),
    )
    for name, label, style in series:
        axes.loglog(sizes, [results[n][name]["seconds"] for n in sizes], style, label=label)
    axes.set(xlabel="episodes in 50 runs", ylabel="seconds", title="Registry and JSON index")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmark, print the table, write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where to put the data")
    parser.add_argument("--output", type=Path, help="folder for registry_benchmark.{md,png,json}, e.g. docs")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--project", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return _measure_here(args.measure, args.project)
    results, loads = {}, []
    for n in args.sizes:
        results[n] = bench_size(n, args.repeats if n < 1_000_000 else 1, args.work)
        loads.append(os.getloadavg()[0])
        print(json.dumps({n: results[n], "load": loads[-1]}), file=sys.stderr, flush=True)
    text = report(results, bench_query(args.work, args.repeats), (min(loads), max(loads)))
    print(text)
    if args.output:
        title = (
            "# The registry's speed\n\n`python benchmarks/registry.py` measures, in turn, the DuckDB registry (new) "
            "and what it replaced (old: a JSON index, and Python reading every JSONL line).\n\n"
        )
        page = f"{title}{text}\n![log-log plot](registry_benchmark.png)\n"
        (args.output / "registry_benchmark.md").write_text(page, encoding="utf-8")
        plot(results, args.output / "registry_benchmark.png")
    return None


if __name__ == "__main__":
    main()
