"""The command line that every stage shares: ``python -m r2v_core.stages.<stage>``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from r2v_core.config.former import former
from r2v_core.errors import R2VError, nearest
from r2v_core.runs.spec import StageSpec, read_spec
from r2v_core.stages.table import get_stage


def _source(upstream: str) -> str:
    switch = get_stage(upstream).switch
    return f"{upstream}, where {switch} is above 0" if switch else upstream


def stage_parser(name: str) -> argparse.ArgumentParser:
    """The options of a stage, and what its ``--help`` says."""
    stage = get_stage(name)
    needs = ", ".join(f"{role} (from {_source(upstream)})" for role, upstream in stage.inputs) or "nothing"
    command = " ".join(stage.command)
    parser = argparse.ArgumentParser(
        prog=f"python -m {command}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{stage.title}.\n\nMakes the asset '{stage.asset}'. Reads: {needs}.\n"
        f"Config sections that decide the result: {', '.join(stage.sections) or 'none'}.",
        epilog=f"""examples:
  python -m {command}
  python -m {command} --partition 'textworld:expert|2' --config configs/mrp.yaml
  python -m {command} --overrides name=try candidates.k=2 --tag try --notes "what I try"

With several GPUs: accelerate launch --multi_gpu --module {command} …

After a crash or kill, the same command resumes the interrupted run. Exit status: 0, done; 2, something to fix (one line
says what; r2v docs troubleshooting says more); 69, a connection was lost; 1, a bug (traceback); 130, 143 or 129,
stopped (resumable).""",
    )
    parser.add_argument("--config", help="YAML config (default: $R2V_CONFIG, else the experiment's own)")
    parser.add_argument(
        "--partition",
        default="textworld:expert|1",
        help="<benchmark>:<teacher>[@<variant>]|<seed>, in quotes (default: %(default)s)",
    )
    parser.add_argument(
        "--overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="dotted config overrides"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="ROLE=RUN_DIR",
        help="read this run instead of the partition's newest finished one; episodes may also come from a FILE.jsonl",
    )
    if stage.extends:
        parser.add_argument(
            "--extend",
            metavar="RUN",
            help="build on this finished run (directory or id), adding the steps or episodes that the config asks for",
        )
    parser.add_argument("--run-id", help="continue the run of this id, or create it")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resume an interrupted run with the same config and inputs (default: yes)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="if another process is making the same run, wait for it and use its result (default: refuse)",
    )
    parser.add_argument("--tag", nargs="+", action="extend", default=[], dest="tags", help="tags for the registry")
    parser.add_argument("--notes", default="", help="free text for the registry")
    parser.add_argument("--spec", type=Path, help="run exactly this planned run (JSON); for orchestrators")
    return parser


def _parse(stage: str, argv: Sequence[str]) -> argparse.Namespace:
    """The command line of a stage.

    Raises:
        R2VError: a line for each option or argument that no stage has, with what stands for it where the R2V scripts
            have it.
    """
    parser = stage_parser(stage)
    args, left = parser.parse_known_args(argv)
    known = [option for action in parser._actions for option in action.option_strings]
    problems, former_options = [], former("options")
    for word in left:
        option = word.partition("=")[0]
        if option in former_options:
            problems.append(f"{option}: an option of the R2V scripts; {former_options[option].sentence('')}")
        elif word.startswith("-"):
            problems.append(f"unknown option {option}.{nearest(option, known)}")
        elif problems:
            pass  # the value of an unknown option
        elif "--resume" in argv:
            problems.append(f"--resume {word}: --resume takes no path; {former_options['--resume'].sentence('')}")
        else:
            problems.append(f"'{word}' belongs to no option; see --help")
    if problems:
        raise R2VError("\n".join(problems))
    return args


def _plan(stage: str, args: argparse.Namespace) -> StageSpec:
    if args.spec is not None:
        try:
            return read_spec(args.spec)
        except R2VError as error:
            raise R2VError(f"--spec {error}") from error
    from r2v_core.partition import Partition
    from r2v_core.runs import processes
    from r2v_core.runs.directories import project_root
    from r2v_core.stages.at_work import refuse_if_at_work
    from r2v_core.stages.experiments import partition_config
    from r2v_core.stages.plan import parse_inputs, plan

    if processes.shard() and not args.run_id:
        raise R2VError(f"{processes.SHARD} is set: name the run that all shards play with --run-id, or unset it")
    partition = Partition.parse(args.partition)
    spec = plan(
        stage,
        partition,
        partition_config(partition, args.config, args.overrides, project_root()),
        overrides=args.overrides,
        inputs=parse_inputs(stage, args.input),
        run_id=args.run_id,
        extend=getattr(args, "extend", None),
        resume=args.resume,
        tags=args.tags,
        notes=args.notes,
    )
    refuse_if_at_work(spec)
    return spec


def main(stage: str, argv: Sequence[str] | None = None) -> int:
    """Plan and run one stage; returns the exit status."""
    from r2v_core.runs import processes, stopping
    from r2v_core.runs.reporting import open_reporter
    from r2v_core.stages.at_work import AtWorkError, wait_for
    from r2v_core.stages.runner import execute, exit_with, run_worker
    from r2v_core.stages.sharded import run_shard

    try:
        args = _parse(stage, sys.argv[1:] if argv is None else argv)
    except R2VError as error:
        return exit_with(error)
    with stopping.listening():
        while True:
            try:
                spec = processes.from_main(lambda: _plan(stage, args))
                if processes.shard():
                    run_shard(spec, open_reporter(stage))
                elif processes.is_main():
                    execute(spec, open_reporter(stage))
                else:
                    run_worker(spec, open_reporter(stage))
                return 0
            except AtWorkError as other:
                if not args.wait:
                    return exit_with(other)
                if wait_for(other.run, open_reporter(stage).log, stopping.check).status == "done":
                    return 0
            except BaseException as error:
                return exit_with(error)


def run_module(stage: str) -> None:
    """``if __name__ == "__main__"`` of a stage module."""
    sys.exit(main(stage))
