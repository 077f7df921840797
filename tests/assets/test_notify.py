"""A failed run reaches the command or webhook that the user names; real processes, a real server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import pytest

from r2v_assets.failure import StageFailure
from r2v_assets.notify import on_failure, tell
from r2v_core.errors import R2VError


@contextmanager
def server(status: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A web server that keeps what it is sent."""
    received: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            assert self.headers["Content-Type"] == "application/json"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}/hook?key=hidden", received
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["textworld:expert"]))
def broken() -> None:
    raise StageFailure("the cheese ran out; buy more", allow_retries=False)


def fail(monkeypatch: pytest.MonkeyPatch, target: str | None) -> dg.SkipReason | None:
    """Let a run fail and the sensor look at it."""
    if target is None:
        monkeypatch.delenv("R2V_ON_FAILURE", raising=False)
    else:
        monkeypatch.setenv("R2V_ON_FAILURE", target)
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions([broken]).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            partition_key="textworld:expert",
            asset_selection=[dg.AssetKey("broken")],
            raise_on_error=False,
        )
        context = dg.build_run_status_sensor_context(
            sensor_name="on_failure",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
        skipped = on_failure(context)
    assert skipped is None or isinstance(skipped, dg.SkipReason)
    return skipped


def check(event: dict[str, object]) -> None:
    assert event["event"] == "run_failed" and event["assets"] == ["broken"] and event["failed_steps"] == ["broken"]
    assert event["partition"] == "textworld:expert" and event["error"] == "the cheese ran out; buy more"
    assert event["dagster_run_id"]


def test_a_command_gets_the_event_on_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "hook.py"
    script.write_text(f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.argv[1] + '\\n' + sys.stdin.read())")
    fail(monkeypatch, f"{sys.executable} {script} '$(touch {tmp_path}/pwned); a'")
    argument, event = (tmp_path / "got").read_text().split("\n")
    assert argument == f"$(touch {tmp_path}/pwned); a" and not (tmp_path / "pwned").exists()  # no shell
    check(json.loads(event))


def test_a_webhook_gets_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200) as (address, received):
        fail(monkeypatch, address)
    (event,) = received
    check(event)


def test_unset_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = fail(monkeypatch, None)
    assert skipped is not None and "R2V_ON_FAILURE is not set" in str(skipped.skip_message)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no-such-program --x", "the command could not be run"),
        (f"{sys.executable} -c 'raise SystemExit(\"no money\")'", "ended with status 1: no money"),
    ],
)
def test_a_hook_that_fails_says_so(target: str, words: str) -> None:
    with pytest.raises(R2VError, match=words):
        tell(target, {})


def test_a_server_that_refuses_is_named_without_its_secrets() -> None:
    with server(500) as (address, _), pytest.raises(R2VError) as caught:
        tell(address, {})
    assert "127.0.0.1" in str(caught.value) and "500" in str(caught.value) and "hidden" not in str(caught.value)
