"""``r2v serve``: a trained router behind an address."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r2v_core.errors import R2VError

if TYPE_CHECKING:
    from r2v_core.serving.opening import Opened

KEY = "R2V_SERVE_KEY"
"""Environment variable with the key that clients have to send."""


def serve(
    partition: Annotated[
        str,
        typer.Argument(
            metavar="PARTITION",
            help="<benchmark>:<teacher>[@<variant>]|<seed>, in quotes: its newest finished runs are read",
        ),
    ],
    config: Annotated[str | None, typer.Option(help="YAML config (default: the experiment's own)")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option(help="dotted config override key=value; repeat the option for more")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="ask this teacher (r2v teachers) instead of the partition's")
    ] = None,
    teacher_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="an option of that teacher, as in teacher.options; repeat for more"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; any but the loopback needs $R2V_SERVE_KEY")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free one")] = 8000,
    log: Annotated[
        Path | None,
        typer.Option(help="file of the decisions (default: decisions.jsonl in a new folder of <outputs>/serve)"),
    ] = None,
    log_messages: Annotated[bool, typer.Option("--log-messages", help="also log the messages")] = False,
) -> None:
    """Serve a trained small model, its router and a teacher at one address that speaks OpenAI's protocol.

    One request to /v1/chat/completions is one step of an episode: the small model proposes, the router decides, the
    teacher acts where it expects failure. The reply says who acted; every decision is a line of a log.
    """
    key = os.environ.get(KEY) or None
    if key is None and not _is_loopback(host):
        raise R2VError(f"--host {host}: others could spend the teacher's budget; set {KEY} to a key that clients send")
    options = _options(teacher_option)
    from r2v_core.partition import Partition
    from r2v_core.runs.directories import project_root
    from r2v_core.runs.reporting import Reporter
    from r2v_core.serving.app import bound, make_app, make_server
    from r2v_core.serving.opening import Wanted, open_service
    from r2v_core.stages.experiments import partition_config

    project, wanted = project_root(), Partition.parse(partition)
    loaded = partition_config(wanted, config, overrides or [], project)
    with bound(host, port) as listening:  # before models are loaded, which takes a while
        report = Reporter("serve")
        opened = open_service(Wanted(wanted, loaded, project, teacher, options, log, log_messages), report)
        for line in _told(opened, f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"):
            report.log(line)
        with suppress(KeyboardInterrupt):
            make_server(make_app(opened.service, opened.about, key)).run(sockets=[listening])
        report.log("stopped")


def _told(opened: Opened, address: str) -> list[str]:
    """What is served, in lines."""
    about = opened.about
    return [
        *[f"{role}: {run}" for role, run in about["runs"].items()],
        f"teacher: {about['teacher']}",
        f"threshold: {about['threshold']:.4f}, {(about['calibration'] or 'of unknown calibration').replace('**', '')}",
        *[f"warning: {warning}" for warning in opened.warnings],
        f"each decision is logged in {about['log']}",
        f"model '{about['model']}' answers at {address} (Ctrl-C ends it)",
    ]


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _options(given: list[str] | None) -> dict[str, Any] | None:
    """Options of the teacher from KEY=VALUE items; None where there are none.

    Raises:
        R2VError: for an item of another form.
    """
    if given is None:
        return None
    from omegaconf import OmegaConf

    for item in given:
        if not item.partition("=")[1]:
            raise R2VError(f"--teacher-option {item}: write KEY=VALUE, e.g. max_tokens=64")
    options = OmegaConf.to_container(OmegaConf.from_dotlist(given))
    assert isinstance(options, dict)
    return {str(name): value for name, value in options.items()}
