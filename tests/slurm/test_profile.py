"""Profiles: what is wrong with one is said before anything is submitted, with file, line, key and the fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r2v_assets.slurm.profile import load_profile
from r2v_assets.slurm.resources import UNLIMITED, seconds
from r2v_assets.slurm.script import Job, job_script
from r2v_core.errors import R2VError
from r2v_core.runs.stage import Stage
from r2v_core.stages.table import BY_ASSET

REPOSITORY = Path(__file__).resolve().parents[2]


def write(root: Path, text: str) -> Path:
    folder = root / "configs" / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text)
    return root


def test_the_example_is_valid_and_shows_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody")
    profile = load_profile("example", REPOSITORY)
    text = (REPOSITORY / "configs/slurm/example.yaml").read_text()
    sections = (type(profile), type(profile.login), type(profile.environment), type(profile.resources("bc_policy")))
    names = {field.alias or name for section in sections for name, field in section.model_fields.items()}
    assert not {name for name in names - {"name"} if name not in text}
    assert profile.resources("bc_policy").sbatch_options()[1:3] == ["--partition=gpu", "--gres=gpu:a100:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shraed: /x", "configs/slurm/mine.yaml:1: shraed: no such key. Did you mean 'shared'?"),
        ("shared: /x\nlogin:\n  hots: a", "configs/slurm/mine.yaml:3: login.hots"),
        ("shared: x", "shared: 'x' has to be an absolute path"),
        ("shared: /x\ndefaults: {time: 1 day}", "configs/slurm/mine.yaml:2: defaults.time: "),
        ("shared: /x\ndefaults: {gpu: 1}", "defaults.gpu"),
        ("shared: /x\ndefaults: {memory: lots}", "defaults.memory"),
        ("shared: /x\nassets:\n  bc_polcy: {gpus: 1}", "mine.yaml:3: no asset 'bc_polcy'. Did you mean 'bc_policy'?"),
        (
            "shared: /x\ndefaults: {time: '4'}",
            "warn_s: 300 s before the end is not within the time limit of task_suite (4)",
        ),
        ("shared: /x\nenvironment: {set: {WANDB_API_KEY: abc}}", "'WANDB_API_KEY' looks like a secret"),
        ("shared: /x\nenvironment: {venv: /a, conda: /b}", "give venv or conda, not both"),
        ("shared: /x\nlogin: {host: h, key: /nosuch/key}", "login.key: no file '/nosuch/key'"),
        ('shared: /x\ndefaults: {partition: "a\\n#SBATCH --x"}', "it holds a line break or control character"),
        ('shared: /x\ndefaults: {extra: ["--x=a\\nb"]}', "it holds a line break or control character"),
        ('shared: "/x\\ny"', "it holds a line break or control character"),
        (
            "shared: ${oc.env:NO_SUCH_VARIABLE}",
            "shared: the environment variable NO_SUCH_VARIABLE is not set; set it, or",
        ),
        ("shared: /x\ndefaults: {memory: 64X}", "'64X' is not an amount of memory; write a whole number and a unit"),
        ("shared: /x\ndefaults: {memory: 1.5T}", "defaults.memory: "),
        ("shared: /x\ndefaults: {memory: 4G, memory_per_cpu: 1G}", "give memory or memory_per_cpu, not both"),
        (
            "shared: /x\ngpu: {gres: ['gpu:2']}",
            "gpu.gres: ['gpu:2'] is not possible: use the keys gpus and gpu_type for GPUs",
        ),
        ("shared: /x\nassets: {candidates: {shards: 0}}", "mine.yaml:2: assets.candidates.shards: 0 is not possible"),
        ("shared: /x\nassets: {candidates: {shards: 4, shards_at_once: 0}}", "assets.candidates.shards_at_once: 0"),
        ("shared: /x\ngpu: {shards: 4}", "gpu.shards: says how one stage is divided; write it under assets"),
        ("shared: /x\norchestrator: {shards: 4}", "orchestrator.shards: says how one stage is divided"),
        (
            "shared: /x\nassets: {bc_policy: {shards: 4}}",
            "assets.bc_policy.shards: this stage can't be divided; those that can: trajectory_run, policy_rollouts, "
            "candidates, router_features, evaluation_clean, evaluation_noisy",
        ),
        ("shared: /x\nassets: {ablation_*: {shards: 2}}", "assets.ablation_no_consistency.shards: this stage can't"),
        (
            "shared: /x\nassets: {candidates: {shards: 2, gpus: 4}}",
            "assets.candidates.shards: each would run as 4 processes, but a shard is one; add processes: 1",
        ),
        ("shared: /x\nassets: {candidates: {shards: 2, where: local}}", "it runs beside Dagster (where: local)"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(R2VError) as caught:
        load_profile("mine", write(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["set: {WANDB_API_KEY: sk-hunter-2}", "pass: [sk-hunter-2]", "pass: sk-hunter-2"])
def test_a_refused_secret_is_not_printed(tmp_path: Path, line: str) -> None:
    with pytest.raises(R2VError) as caught:
        load_profile("mine", write(tmp_path, f"shared: /x\nenvironment: {{{line}}}"))
    assert "environment." in str(caught.value) and "hunter" not in str(caught.value)


def test_an_unknown_profile_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, "shared: /x")
    with pytest.raises(R2VError, match=r"no SLURM profile 'mien'.* Did you mean 'mine'"):
        load_profile("mien", root)
    monkeypatch.delenv("R2V_SLURM_PROFILE", raising=False)
    with pytest.raises(R2VError, match="set R2V_SLURM_PROFILE"):
        load_profile(None, root)


def test_the_particular_wins_over_the_general(tmp_path: Path) -> None:
    text = """
shared: /x
defaults: {account: all, cpus: 3, time: "60"}
cpu: {partition: slow}
gpu: {partition: fast, cpus: 7}
assets:
  evaluation_*: {memory: 5G}
  evaluation_clean: {cpus: 9, gpus: 0}
"""
    profile = load_profile("mine", write(tmp_path, text))
    clean, noisy, suite = (profile.resources(a) for a in ("evaluation_clean", "evaluation_noisy", "task_suite"))
    assert (clean.partition, clean.cpus, clean.memory, clean.gpus) == ("slow", 9, "5G", 0)
    assert (noisy.partition, noisy.cpus, noisy.memory, noisy.gpus) == ("fast", 7, "5G", 1)
    assert (suite.partition, suite.cpus, suite.account, suite.time) == ("slow", 3, "all", "60")
    assert profile.resources("report").where == "local"


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("memory: 64GB", ["--mem=64G"]),
        ("memory: 500 mb", ["--mem=500M"]),
        ("memory: 2TiB", ["--mem=2T"]),
        ("memory: 16000", ["--mem=16000"]),
        ("memory: 0", ["--mem=0"]),
        ("memory: null", []),
        ("memory_per_cpu: 4gb", ["--mem-per-cpu=4G"]),
        ("memory: null, memory_per_cpu: 4G", ["--mem-per-cpu=4G"]),
    ],
)
def test_memory_as_people_write_it(tmp_path: Path, written: str, options: list[str]) -> None:
    profile = load_profile("mine", write(tmp_path, f"shared: /x\ndefaults: {{{written}}}"))
    assert [o for o in profile.resources("verifier").sbatch_options() if "mem" in o] == options
    text = f"shared: /x\ndefaults: {{{written}}}\nassets: {{verifier: {{memory: 9G}}, router: {{memory_per_cpu: 1G}}}}"
    profile = load_profile("mine", write(tmp_path, text))
    for asset, own in (("verifier", "--mem=9G"), ("router", "--mem-per-cpu=1G")):
        assert [o for o in profile.resources(asset).sbatch_options() if "mem" in o] == [own]


@pytest.mark.parametrize(
    ("written", "option"),
    [
        ("time: 24:00:00", "--time=24:00:00"),
        ("time: 48:30", "--time=48:30"),
        ("time: 90", "--time=90"),
        ("time: UNLIMITED", "--time=UNLIMITED"),
        ("account: 4711", "--account=4711"),
        ("account: 0123", "--account=0123"),
        ("qos: 7", "--qos=7"),
        ("gpus: 2, gres: ['nvme:1', 'lustre']", "--gres=gpu:2,nvme:1,lustre"),
        ("gpus: 0, gres: ['nvme:1']", "--gres=nvme:1"),
    ],
)
def test_values_as_people_write_them(tmp_path: Path, written: str, option: str) -> None:
    profile = load_profile("mine", write(tmp_path, f"shared: /x\ndefaults: {{{written}}}"))
    assert option in profile.resources("verifier").sbatch_options()


def test_what_assets_ask_for_unless_a_profile_says_otherwise(tmp_path: Path) -> None:
    profile = load_profile("mine", write(tmp_path, "shared: /x"))
    asked = {asset: profile.resources(asset) for asset in BY_ASSET}
    assert {
        asset: (r.gpus, r.time) for asset, r in asked.items() if r.where == "slurm" and "ablation" not in asset
    } == {
        "task_suite": (0, "04:00:00"),
        "teacher_policy": (1, "24:00:00"),
        "trajectory_run": (1, "24:00:00"),
        "perturbed_dataset": (0, "04:00:00"),
        "bc_policy": (2, "48:00:00"),
        "policy_rollouts": (1, "12:00:00"),
        "verifier": (1, "12:00:00"),
        "candidates": (1, "24:00:00"),
        "dpo_policy": (2, "24:00:00"),
        "router_features": (1, "12:00:00"),
        "router": (1, "04:00:00"),
        "evaluation_clean": (1, "24:00:00"),
        "evaluation_noisy": (1, "24:00:00"),
    }
    assert {(r.gpus, r.time) for asset, r in asked.items() if "ablation" in asset} == {(1, "48:00:00")}
    assert {asset for asset, r in asked.items() if r.where == "local"} == {"result_tables", "report"}


def test_a_stage_can_not_leave_out_what_its_job_asks_for() -> None:
    with pytest.raises(TypeError, match="'resources'"):
        Stage(name="x", asset="x", function="m:run", title="X", group="data", kinds=())  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("30", 1800),
        ("90:30", 5430),
        ("1:00:00", 3600),
        ("2-12", 216000),
        ("1-0:30", 88200),
        ("1-01:01:01", 90061),
        ("unlimited", UNLIMITED),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(limit: str, expected: int) -> None:
    assert seconds(limit) == expected


def test_the_script_quotes_what_people_write(tmp_path: Path) -> None:
    text = "shared: /x\nenvironment: {modules: [cuda/12], set: {A: \"it's $HOME\"}}\ndefaults: {constraint: 'a b'}"
    profile = load_profile("mine", write(tmp_path, text))
    script = job_script(profile, Job("collect", "textworld:expert|1", "run", Path("/d/run dir"), Path("/d")), {})
    assert '#SBATCH --constraint="a b"' in script and "module load cuda/12" in script
    assert "export A='it'\"'\"'s $HOME'" in script and "--spec '/d/run dir/spec.json'" in script
    assert '#SBATCH --output="/d/run dir/slurm/job-%j.log"' in script


def test_shards_are_elements_of_a_job_array_and_a_job_gathers(tmp_path: Path) -> None:
    text = "shared: /s\nassets: {evaluation_*: {shards: 6, shards_at_once: 2, gpus: 4, processes: 1}}"
    profile = load_profile("mine", write(tmp_path, text))
    job = Job("evaluate_noisy", "textworld:expert|1", "run", Path("/d/run"), Path("/d"))
    array, gather = (job_script(profile, job, {}, sharded=sharded) for sharded in (True, False))
    assert "#SBATCH --array=0-5%2\n" in array and "#SBATCH --output=/d/run/slurm/job-%A_%a.log\n" in array
    assert 'export R2V_SHARD="$SLURM_ARRAY_TASK_ID/6"\n' in array
    assert not re.search("array|SHARD|ARRAY", gather) and "#SBATCH --output=/d/run/slurm/job-%j.log\n" in gather
    assert all("-m r2v_core.stages.evaluate_noisy --spec" in script for script in (array, gather))
    with pytest.raises(R2VError, match=r"cluster: shards: each would run as 2 processes.* \(mine\)"):
        profile.asking("evaluation_noisy", {"processes": 2})


@pytest.mark.parametrize("stage", BY_ASSET.values(), ids=list(BY_ASSET))
def test_every_asset_has_a_job(tmp_path: Path, stage: Stage) -> None:
    profile = load_profile("mine", write(tmp_path, "shared: /s\nlogin: {host: local}\nenvironment: {venv: /v}"))
    job = Job(stage.name, "textworld:expert|1", "run", Path("/d/run"), Path("/d"))
    script = job_script(profile, job, {})
    assert f"--job-name=r2v.{stage.asset}.textworld:expert.1\n" in script
    two_gpus = stage.asset in ("bc_policy", "dpo_policy")
    launcher = r"accelerate\.commands\.launch .* --num_processes=2 .* --module " if two_gpus else ""
    command = re.escape(" ".join(stage.command))
    assert re.search(rf'exec "\$python" -m {launcher}{command} --spec /d/run/spec\.json\n', script)


def test_processes_are_one_a_gpu_unless_the_profile_says_otherwise(tmp_path: Path) -> None:
    text = "shared: /s\nlogin: {host: local}\nenvironment: {venv: /v}\nassets: {candidates: {processes: 3, gpus: 0}}"
    profile = load_profile("mine", write(tmp_path, text))
    scripts = {
        stage: job_script(profile, Job(stage, "textworld:expert|1", "run", Path("/d/run"), Path("/d")), {})
        for stage in ("candidates", "train_bc", "evaluate_clean", "train_router")
    }
    found = {stage: re.findall(r"--num_processes=(\d+)", script) for stage, script in scripts.items()}
    assert found == {"candidates": ["3"], "train_bc": ["2"], "evaluate_clean": [], "train_router": []}
