"""``r2v slurm …``: everything about the cluster that is not Dagster's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from r2v_core.errors import R2VError, nearest

slurm_app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Stages as SLURM jobs: prepare a cluster, check it, look at jobs. Profiles: configs/slurm/*.yaml.",
)
ProfileOption = Annotated[
    str | None, typer.Option("--profile", "-p", help="name of a profile (default: $R2V_SLURM_PROFILE)")
]


@slurm_app.command()
def deploy(
    profile: ProfileOption = None,
    install: Annotated[bool, typer.Option("--install", help="create the virtual environment there if need be")] = False,
) -> None:
    """Prepare the environment folder that jobs start from; again after every change of profile or packages."""
    from r2v_assets.project import root
    from r2v_assets.slurm.deploy import deploy as run
    from r2v_assets.slurm.profile import load_profile

    run(load_profile(profile, root()), root(), install=install, say=typer.echo)


@slurm_app.command()
def doctor(
    profile: ProfileOption = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait for each test job")] = 300.0,
) -> None:
    """Check the cluster against the profile, with a fix for whatever fails. Runs one small job in each partition."""
    from r2v_assets.project import root
    from r2v_assets.slurm.doctor import Doctor, examine
    from r2v_assets.slurm.profile import load_profile

    failures = examine(Doctor(load_profile(profile, root()), root(), timeout), typer.echo)
    if failures:
        raise R2VError(f"{failures} check{'s' if failures > 1 else ''} failed")
    typer.echo("everything is ready: R2V_COMPUTE=slurm")


@slurm_app.command()
def render(
    asset: Annotated[str, typer.Argument(help="e.g. bc_policy")],
    partition: Annotated[str, typer.Option(help="<benchmark>:<teacher>|<seed>, in quotes")] = "textworld:expert|1",
    profile: ProfileOption = None,
) -> None:
    """Print the job script that would be submitted for an asset; submits nothing, needs no cluster."""
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
        typer.echo(f"# {asset} runs beside Dagster (where: local); no job is submitted for it")
        return
    run_dir = root() / "<run directory>"
    job = Job(BY_ASSET[asset].name, partition, "<run id>", Path(run_dir), root())
    typer.echo(job_script(chosen, job, {"R2V_PROJECT": str(root()), "PYTHONUNBUFFERED": "1"}), nl=False)
    for name in chosen.environment.pass_:
        typer.echo(f"# {name}: handed on from Dagster's environment at submission")


@slurm_app.command()
def status(
    profile: ProfileOption = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="ended jobs of the last day too")] = False,
) -> None:
    """What the pipeline's jobs are doing: id, asset and partition, state, why pending, node, time, log."""
    from r2v_assets.project import root
    from r2v_assets.slurm.profile import load_profile
    from r2v_assets.slurm.status import show

    show(load_profile(profile, root()), root(), all_jobs)


def main(args: list[str]) -> None:
    """Run ``r2v slurm`` with these arguments."""
    slurm_app(args=args, prog_name="r2v slurm", standalone_mode=True)


if __name__ == "__main__":
    main(sys.argv[1:])
