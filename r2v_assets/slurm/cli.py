"""``r2v slurm …``: everything about the cluster that is not Dagster's."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from r2v_core.console import say
from r2v_core.errors import R2VError, nearest

slurm_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run stages as SLURM jobs: prepare a cluster, check it, manage jobs. Profiles are in configs/slurm/*.yaml.",
    epilog="More: r2v docs slurm",
)
ProfileOption = Annotated[
    str | None, typer.Option("--profile", "-p", help="name of a profile (default: $R2V_SLURM_PROFILE)")
]


@slurm_app.command()
def deploy(
    profile: ProfileOption = None,
    install: Annotated[
        bool, typer.Option("--install", help="also create the virtual environment if there is none")
    ] = False,
) -> None:
    """Prepare the environment folder that jobs start from. Repeat it after every change of profile or packages."""
    from r2v_assets.project import root
    from r2v_assets.slurm.deploy import deploy as run
    from r2v_assets.slurm.profile import load_profile

    run(load_profile(profile, root()), root(), install=install, say=say)


@slurm_app.command()
def doctor(
    profile: ProfileOption = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait for each test job")] = 300.0,
) -> None:
    """Check the cluster against the profile, and name a fix for each failure. Runs a job in each SLURM partition."""
    from r2v_assets.project import root
    from r2v_assets.slurm.doctor import Doctor, examine
    from r2v_assets.slurm.profile import load_profile

    failures = examine(Doctor(load_profile(profile, root()), root(), timeout), say)
    if failures:
        raise R2VError(f"{failures} check{'s' if failures > 1 else ''} failed")
    say("everything is ready: R2V_COMPUTE=slurm")


@slurm_app.command()
def render(
    asset: Annotated[str, typer.Argument(help="the asset, e.g. bc_policy")],
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")] = "textworld:expert|1",
    profile: ProfileOption = None,
) -> None:
    """Print the job script that would be submitted for an asset. Submits nothing and needs no cluster."""
    from r2v_assets.partitions import check_partition
    from r2v_assets.project import root
    from r2v_assets.slurm.profile import load_profile
    from r2v_assets.slurm.script import Job, job_script
    from r2v_core.stages.table import BY_ASSET

    if asset not in BY_ASSET:
        raise R2VError(f"no asset '{asset}'.{nearest(asset, BY_ASSET)}")
    check_partition(partition)
    chosen = load_profile(profile, root())
    if chosen.resources(asset).where == "local":
        say(f"# {asset} runs beside Dagster (where: local); no job is submitted for it")
        return
    run_dir = root() / "<run directory>"
    job = Job(BY_ASSET[asset].name, partition, "<run id>", Path(run_dir), root())
    variables = {"R2V_PROJECT": str(root()), "PYTHONUNBUFFERED": "1"}
    if chosen.resources(asset).shards > 1:
        say(job_script(chosen, job, variables, sharded=True), end="")
        say("\n# ---- after the job array above, this job gathers what its elements have made, and finishes the run\n")
    say(job_script(chosen, job, variables), end="")
    for name in chosen.environment.pass_:
        say(f"# {name}: handed on from Dagster's environment at submission")


@slurm_app.command()
def status(
    profile: ProfileOption = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="also show jobs that ended within the last day")] = False,
) -> None:
    """Show the pipeline's jobs: id, asset and partition, state, why they are pending, node, time, log."""
    from r2v_assets.project import root
    from r2v_assets.slurm.profile import load_profile
    from r2v_assets.slurm.status import show

    show(load_profile(profile, root()), root(), all_jobs)


@slurm_app.command(context_settings={"ignore_unknown_options": True})
def shell(
    asset: Annotated[str, typer.Argument(help="the asset whose resources to ask for, e.g. bc_policy")],
    command: Annotated[
        list[str] | None, typer.Argument(help="the command to run there, after -- (default: a shell)")
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Open a shell on a compute node, with the resources and the environment of an asset's job."""
    from r2v_assets.project import root
    from r2v_assets.slurm.profile import load_profile
    from r2v_assets.slurm.shell import shell as run
    from r2v_core.stages.table import BY_ASSET

    if asset not in BY_ASSET:
        raise R2VError(f"no asset '{asset}'.{nearest(asset, BY_ASSET)}")
    raise typer.Exit(run(load_profile(profile, root()), asset, root(), command or []))


@slurm_app.command(
    epilog="Example: r2v slurm run --partition 'textworld:expert|1' --seeds 1-3 · Watch it: r2v slurm status, the log, "
    "or the UI on this project's Dagster instance · End it: r2v slurm cancel --partition …, or Terminate in the UI"
)
def run(
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")],
    seeds: Annotated[str | None, typer.Option(help="run these seeds instead of the partition's: 1-5 or 1,3,4")] = None,
    asset: Annotated[list[str] | None, typer.Option(help="make only this asset; repeat the option for more")] = None,
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option(help="dotted config override key=value; repeat the option for more")
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Submit a whole pipeline, so that you can log out: one small job per partition submits the stages' jobs."""
    from r2v_assets.partitions import check_partition
    from r2v_assets.project import root
    from r2v_assets.slurm.orchestrator import submit
    from r2v_assets.slurm.profile import load_profile
    from r2v_core.runs.directories import relative_to
    from r2v_core.stages.experiments import partition_config
    from r2v_core.stages.table import BY_ASSET

    first = check_partition(partition)
    chosen = [check_partition(f"{first.experiment}|{seed}") for seed in _seeds(seeds)] if seeds else [first]
    for name in asset or []:
        if name not in BY_ASSET:
            raise R2VError(f"no asset '{name}'.{nearest(name, BY_ASSET)}")
    arguments = [word for name in asset or [] for word in ("--asset", name)]
    for one in chosen:
        loaded = partition_config(one, config, overrides or [], root())
    arguments += ["--config", relative_to(loaded.path, root())] if config else []
    arguments += [word for line in overrides or [] for word in ("--overrides", line)]
    submit(load_profile(profile, root()), chosen, root(), arguments, say)


def _seeds(text: str) -> list[int]:
    """``1-3,7`` → 1, 2, 3, 7.

    Raises:
        R2VError: if it is written in another way.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise R2VError(f"--seeds {text}: write 1-5, 1,3,4 or both, e.g. 1-3,7")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


@slurm_app.command()
def cancel(
    partition: Annotated[str | None, typer.Option(help="cancel jobs of this partition key, in quotes")] = None,
    asset: Annotated[str | None, typer.Option(help="cancel only jobs of this asset")] = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="cancel jobs of every partition")] = False,
    profile: ProfileOption = None,
) -> None:
    """Cancel jobs that wait or run. Their stages save first; materialise the assets again to continue from there."""
    from r2v_assets.partitions import check_partition
    from r2v_assets.project import root
    from r2v_assets.slurm.orchestrator import ASSET as ORCHESTRATOR
    from r2v_assets.slurm.profile import load_profile
    from r2v_assets.slurm.status import cancel_jobs
    from r2v_core.stages.table import BY_ASSET

    if asset is not None and asset not in (known := [*BY_ASSET, ORCHESTRATOR]):
        raise R2VError(f"no asset '{asset}'.{nearest(asset, known)}")
    if partition is not None:
        check_partition(partition)
    if (partition is None) != all_jobs:
        raise R2VError("which jobs? give --partition 'textworld:expert|1', or --all, and --asset with either")
    cancel_jobs(load_profile(profile, root()), partition, asset, say)


def main(args: list[str]) -> None:
    """Run ``r2v slurm`` with these arguments."""
    slurm_app(args=args, prog_name="r2v slurm", standalone_mode=True)


if __name__ == "__main__":
    main(sys.argv[1:])
