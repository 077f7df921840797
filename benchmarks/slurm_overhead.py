"""What orchestration costs on SLURM: an asset against the same payload by sbatch, a backfill against a job array.

    python benchmarks/slurm_overhead.py                 about ten minutes; root, Debian's SLURM packages
    python benchmarks/slurm_overhead.py --episodes 400  a longer payload

Both sides run on the same one-machine cluster (r2v_assets/slurm/onemachine.py), whose nodes share this machine's
processors with Dagster: what Dagster computes is taken from the jobs, which a real cluster's login node does not do.
The payload is stage 1 (`trajectory_run`) on games that are compiled already. Both alternate. `sbatch --wait` asks
for its job at growing intervals, so it comes back long after the job's end; the figure that counts is therefore the
time from its start to the end of its last job as accounting has it, in whole seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import dagster as dg  # noqa: E402

from r2v_assets.slurm.onemachine import Cluster  # noqa: E402
from r2v_assets.slurm_demo import enter  # noqa: E402

ASSET = "trajectory_run"
CONFIG = """
defaults: [mrp]
name: bench
benchmark:
  max_steps: 8
  splits: {{train: 1, router: 1, validation: 1, test: 1}}
  options: {{goals: [detailed], mix: [{{family: treasure_hunter, level: 4}}]}}
collection: {{episodes_per_task: {episodes}}}
"""
SBATCH = ["sbatch", "--wait", "--account=r2v", "--partition=cpu", "--cpus-per-task=1", "--mem=2G", "--time=30"]


def make_project(root: Path, partitions: int, episodes: int, slots: int) -> list[str]:
    """A project with its configs, a profile and a Dagster instance; returns the partition keys."""
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    (root / "configs/bench.yaml").write_text(CONFIG.format(episodes=episodes))
    seeds = list(range(1, partitions + 1))
    experiments = {"seeds": seeds, "experiments": {"textworld:expert": {"config": "bench.yaml"}}}
    (root / "configs/experiments.yaml").write_text(json.dumps(experiments))
    profile = (root / "configs/slurm/onemachine.yaml").read_text()
    for old, new in (("cpus: 2, memory: 6G", "cpus: 1, memory: 2G, gpus: 0"), ("max_jobs: 4", f"max_jobs: {slots}"),
                     ('OMP_NUM_THREADS: "2"', f'OMP_NUM_THREADS: "1", PYTHONPATH: "{REPOSITORY}"')):  # fmt: skip
        assert old in profile, old
        profile = profile.replace(old, new)
    (root / "configs/slurm/onemachine.yaml").write_text(profile)
    (root / "dagster_home").mkdir()
    shutil.copy(REPOSITORY / "dagster_home/dagster.yaml", root / "dagster_home")
    return [f"textworld:expert|{seed}" for seed in seeds]


def output_of(command: list[str], root: Path) -> str:
    """What a command prints; all of it is shown if it fails."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def timed(command: list[str], root: Path) -> float:
    """Seconds a command takes."""
    began = time.monotonic()
    output_of(command, root)
    return time.monotonic() - began


def payload(root: Path, key: str) -> str:
    """The stage by hand, a run of its own."""
    return f"{sys.executable} -m r2v_core.stages.collect --config configs/bench.yaml --partition '{key}' --no-resume"


def sbatch(root: Path, *arguments: str) -> tuple[float, float]:
    """Seconds until ``sbatch --wait`` comes back, and until its last job has ended."""
    began, clock = time.time(), time.monotonic()
    printed = output_of([*SBATCH, "--output=/dev/null", *arguments], root)
    waited, job = time.monotonic() - clock, printed.split()[-1]
    ask = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=End", "--jobs", job]
    for _ in range(60):
        ends = output_of(ask, root).split()
        if ends and all(end[0].isdigit() for end in ends):
            return waited, max(datetime.fromisoformat(end).timestamp() for end in ends) - began
        time.sleep(0.5)
    raise SystemExit(f"accounting does not know the end of job {job}")


def sbatch_one(root: Path, key: str) -> tuple[float, float]:
    """The payload as a job."""
    return sbatch(root, "--wrap", payload(root, key))


def sbatch_array(root: Path, keys: list[str], slots: int) -> tuple[float, float]:
    """The payload as a job array, one task a partition."""
    command = payload(root, "textworld:expert|$SLURM_ARRAY_TASK_ID").replace("'", '"')
    return sbatch(root, f"--array=1-{len(keys)}%{slots}", "--wrap", command)


def materialize(root: Path, asset: str, key: str) -> float:
    """``dagster asset materialize`` in a shell, a new run each time."""
    arguments = ["asset", "materialize", "-m", "r2v_assets.definitions", "--select", asset, "--partition", key]
    return timed([sys.executable, "-m", "dagster", *arguments], root)


def phases(root: Path, wall: float) -> dict[str, float]:
    """Where the time of the latest materialisation went, in seconds."""
    with dg.DagsterInstance.from_config(str(root / "dagster_home")) as instance:
        run = instance.get_runs(limit=1)[0]
        entries = instance.all_logs(run.run_id)
    said = {entry.user_message: entry.timestamp for entry in entries}
    submitted = next(at for text, at in said.items() if text.startswith("submitted SLURM job"))
    kinds: dict[str, float] = {}  # of the first event of a kind: the stage's step comes before the checks' step
    for entry in entries:
        if entry.dagster_event:
            kinds.setdefault(entry.dagster_event.event_type_value, entry.timestamp)
    record = max(root.glob("data/mrp/runs/*/slurm_job.json"), key=lambda path: path.stat().st_mtime)
    job = json.loads(record.read_text())["attempts"][-1]
    started, ended = (datetime.fromisoformat(job[name]).timestamp() for name in ("started_at", "ended_at"))
    first, step = entries[0].timestamp, kinds["STEP_START"]
    return {
        "Dagster starts (imports, definitions) and ends": wall - (entries[-1].timestamp - first),
        "run to step": step - first,
        "plan and submit": submitted - step,
        "queue (SLURM, whole seconds)": started - submitted,
        "job (whole seconds)": ended - started,
        "noticed, accounting read, registered": kinds["STEP_SUCCESS"] - ended,
        "asset checks": entries[-1].timestamp - kinds["STEP_SUCCESS"],
    }


def processor_seconds() -> float:
    """Of all processes of ours that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def backfill(root: Path, asset: str, keys: list[str]) -> tuple[float, float]:
    """A backfill as it is asked for in a shell, from its request to its last run's end; the daemon is running already.

    Returns its seconds, and the processor time of Dagster's daemon, code server and runs.
    """
    used = processor_seconds()
    with (root / "daemon.log").open("w") as log:
        guard = ["-m", "r2v_assets.compute.guard", str(os.getpid()), sys.executable]  # ends with us
        command = [sys.executable, *guard, "-m", "dagster._daemon", "run", "-m", "r2v_assets.definitions"]
        daemon = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
    try:
        with dg.DagsterInstance.from_config(str(root / "dagster_home")) as instance:
            while not instance.get_daemon_statuses().get("BACKFILL"):
                time.sleep(0.5)
            ask = ["dagster", "job", "backfill", "-m", "r2v_assets.definitions", "-j", f"{asset}_job", "--noprompt"]
            subprocess.run([sys.executable, "-m", *ask, "--partitions", ",".join(keys)], cwd=root, check=True)
            request = instance.get_backfills(limit=1)[0]
            began = request.backfill_timestamp
            mine = dg.RunsFilter(tags={"dagster/backfill": request.backfill_id})
            while len(runs := instance.get_run_records(mine)) < len(keys) or not all(
                run.dagster_run.is_finished for run in runs
            ):
                time.sleep(0.5)
            failed = [run for run in runs if run.dagster_run.status != dg.DagsterRunStatus.SUCCESS]
            if failed or len(runs) != len(keys):
                raise SystemExit(f"{len(failed)} of {len(runs)} runs failed; see {root}/daemon.log")
            first = min(run.create_timestamp.timestamp() for run in runs)
            last = max(run.end_time or 0.0 for run in runs)
            print(f"first run after {first - began:.1f} s", file=sys.stderr)
    finally:
        daemon.terminate()
        daemon.wait(60)
    return last - began, processor_seconds() - used


def measure(root: Path, keys: list[str], repeats: int, slots: int) -> str:
    """Both comparisons, as Markdown."""
    print("making task suites (not measured)", file=sys.stderr)
    suite = [sys.executable, "-m", "r2v_core.stages.task_suite", "--config", "configs/bench.yaml", "--partition"]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) + 1)) as pool:
        list(pool.map(lambda key: timed([*suite, key], root), keys))
    by_hand, by_asset, split = [], [], []
    for _ in range(repeats):
        by_hand.append(sbatch_one(root, keys[0]))
        by_asset.append(materialize(root, ASSET, keys[0]))
        split.append(phases(root, by_asset[-1]))
        print(f"sbatch {by_hand[-1][1]:.1f} s, asset {by_asset[-1]:.1f} s", file=sys.stderr)
    array_waited, array = sbatch_array(root, keys, slots)
    print(f"array {array:.1f} s", file=sys.stderr)
    many, used = backfill(root, ASSET, keys)
    one_waited, one = (statistics.median(pair[i] for pair in by_hand) for i in (0, 1))
    asset = statistics.median(by_asset)
    load = os.getloadavg()[0]
    lines = [
        f"{os.cpu_count()} cores shared by Dagster and both nodes, load {load:.1f} at the end; medians of {repeats}.",
        "",
        "| | `sbatch --wait` | of it, until the last job's end | Dagster | beyond the job's end |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| one asset | {one_waited:.1f} s | {one:.1f} s | {asset:.1f} s | {asset - one:+.1f} s |",
        f"| {len(keys)} partitions, {slots} at a time | {array_waited:.1f} s | {array:.1f} s | {many:.1f} s "
        f"| {many / array:.2f} × |",
        "",
        f"Dagster took {used:.0f} s of processor time for the backfill, {used / len(keys):.1f} s a run.",
        "",
        "| one asset: where the time goes | s |",
        "| --- | ---: |",
        *(f"| {name} | {statistics.median(part[name] for part in split):.1f} |" for name in split[0]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Bring the cluster up, measure, print, take it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=24)
    parser.add_argument("--episodes", type=int, default=300, help="length of the payload")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slots", type=int, default=4, help="jobs at a time, on both sides")
    parser.add_argument("--output", type=Path, help="file for the tables, e.g. docs/slurm_overhead.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="r2v-bench-") as folder:
        root = Path(folder) / "project"
        root.mkdir()
        keys = make_project(root, args.partitions, args.episodes, args.slots)
        with Cluster(Path(folder) / "cluster") as cluster:
            enter(cluster)
            os.environ |= {"R2V_PROJECT": str(root), "DAGSTER_HOME": str(root / "dagster_home"), "OMP_NUM_THREADS": "1",
                           "PYTHONPATH": str(REPOSITORY), "DAGSTER_DISABLE_TELEMETRY": "1"}  # fmt: skip
            from r2v_assets.slurm.deploy import deploy
            from r2v_assets.slurm.profile import load_profile

            deploy(load_profile(None, root), root, install=False, say=lambda line: print(line, file=sys.stderr))
            text = measure(root, keys, args.repeats, args.slots)
    print(text)
    if args.output:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
