"""What a patch is worth: SWE-bench's own grader on the log of the hidden tests.

The verdict depends on FAIL_TO_PASS and PASS_TO_PASS alone, read by ``swebench``'s log parsers and graded by its
``get_eval_report``. The tests run on a fresh copy of the repository with the patch's source (:mod:`.sources`): an agent
that edits, deletes or adds tests or settings changes nothing. What is graded is not what was printed but what pytest
recorded, and passes are believed where the same tests fail once they have to (:mod:`.doubts`).

**What is not prevented**: tests and fix run in one process, there as in the official harness. A fix that is written to
deceive this very procedure, by telling a control from the tests or by searching the process for the records' key, can
make itself pass. ``docs/sandbox.md`` says what was tried.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from r2v_core.benchmarks.once import once
from r2v_core.benchmarks.swebench.data import END, START, Instance
from r2v_core.errors import R2VError

MISSING = "the package swebench is missing: pip install -c constraints.txt -e '.[swebench]'"
MODEL = "r2v"
RUN = "r2v"
"""Names in the official harness' files."""

MARKS = {
    "start": START,
    "end": END,
    "apply_failed": ">>>>> Patch Apply Failed",
    "tests_error": ">>>>> Tests Errored",
    "timeout": ">>>>> Tests Timed Out",
    "exit_code": ">>>>> Test Exit Code",
}
"""The official harness' markers in a log."""


@dataclass(frozen=True)
class Verdict:
    """How a patch does on the hidden tests."""

    resolved: bool
    fixed: int
    """Of FAIL_TO_PASS, those that pass."""
    to_fix: int
    kept: int
    """Of PASS_TO_PASS, those that still pass."""
    to_keep: int
    ran: bool = True
    """Whether the patch applied and the tests said anything."""
    doubt: str = ""
    """Why what the tests said is not believed; nothing is fixed then."""
    touched: tuple[str, ...] = ()
    """Files of the patch, other than tests, that decide how tests run, or could, each with what it is."""

    @property
    def score(self) -> float:
        """The share that is fixed, times the share that is kept."""
        return self.fixed / self.to_fix * (self.kept / self.to_keep if self.to_keep else 1.0)

    @property
    def flags(self) -> list[str]:
        """What a reader of the verdict should know of how it was reached for."""
        return [*([f"not believed: {self.doubt}"] if self.doubt else []), *self.touched]


def untouched(instance: Instance) -> Verdict:
    """The verdict on no patch at all."""
    return Verdict(False, 0, len(instance.fail_to_pass), len(instance.pass_to_pass), len(instance.pass_to_pass))


def lost(instance: Instance) -> Verdict:
    """The verdict on a patch on which the tests did not run."""
    return Verdict(False, 0, len(instance.fail_to_pass), 0, len(instance.pass_to_pass), ran=False)


def has_grader() -> bool:
    """Whether the package is installed; it is not imported for that."""
    return find_spec("swebench") is not None


def grade(instance: Instance, patch: str, log: str) -> Verdict:
    """The official grader's verdict on a log.

    Raises:
        R2VError: if the package is missing, or the instance names a log parser or a way of grading that it lacks.
    """
    grading, spec_class = _grader()
    spec = spec_class(
        instance_id=instance.instance_id,
        image=instance.docker_image,
        eval_script_list=[],
        repo=instance.repo,
        version=instance.version,
        FAIL_TO_PASS=list(instance.fail_to_pass),
        PASS_TO_PASS=list(instance.pass_to_pass),
        log_parser=instance.log_parser,
        eval_type=instance.eval_type,
    )
    with tempfile.TemporaryDirectory(prefix="r2v-graded-") as folder:
        path = Path(folder, "test_output.txt")
        path.write_text(log, encoding="utf-8", errors="replace")
        try:
            report = grading.get_eval_report(spec, prediction(instance, patch), str(path), include_tests_status=True)
        except (KeyError, ValueError) as error:
            raise R2VError(
                f"{instance.instance_id}: the installed swebench can't grade it ({error}); use the release in "
                "constraints.txt, or leave the instance out"
            ) from None
    return from_report(instance, report[instance.instance_id])


def statuses(instance: Instance, log: str) -> dict[str, str]:
    """Every test in a log with its status, as the grader's parser reads it."""
    grading, _ = _grader()
    inside = log.partition(START)[2].partition(END)[0]
    found: dict[str, str] = grading.PARSER_REGISTRY[instance.log_parser](inside, None)
    return found


def prediction(instance: Instance, patch: str) -> dict[str, str]:
    """A line of the harness' predictions file."""
    return {"instance_id": instance.instance_id, "model_name_or_path": MODEL, "model_patch": patch}


def from_report(instance: Instance, report: dict[str, Any]) -> Verdict:
    """The verdict in one instance's report."""
    tests = report.get("tests_status")
    if not tests:
        return lost(instance)
    fixed, kept = (len(tests[name]["success"]) for name in ("FAIL_TO_PASS", "PASS_TO_PASS"))
    return Verdict(bool(report["resolved"]), fixed, len(instance.fail_to_pass), kept, len(instance.pass_to_pass))


@once(1)
def _grader() -> tuple[Any, Any]:
    """The grading module and the class of what it is asked about.

    Their package's ``__init__`` imports clients of Docker, of a cloud and of the hub, which takes seconds and reads a
    ``.env``; grading needs none of them, so it is passed over.
    """
    if not has_grader():
        raise R2VError(MISSING)
    types_ = import_module("swebench.types")
    name = "swebench.harness"
    stand_in = ModuleType(name)
    stand_in.__path__ = [str(Path(types_.__file__ or "").parent / "harness")]
    known = sys.modules.setdefault(name, stand_in)
    try:
        grading = import_module(f"{name}.grading")
    finally:
        if known is stand_in:
            del sys.modules[name]
    return grading, types_.TestSpec


def docker_problem() -> str | None:
    """Why the official harness can't run here, in one line; None if it can."""
    instead = "or use benchmark.options.execution: local or apptainer"
    if not shutil.which("docker"):
        return f"execution 'docker' needs Docker, which is not installed (apt install docker.io); install it, {instead}"
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"execution 'docker': the docker command does not answer; repair it, {instead}"
    if done.returncode or not done.stdout.strip():
        return f"execution 'docker': no Docker engine answers here; start it, {instead}"
    return None


def harness_command(instance: Instance, folder: Path, seconds: int) -> list[str]:
    """The official harness on the files that :func:`write_harness_files` makes."""
    return [
        *(sys.executable, "-m", "swebench.harness.run_evaluation"),
        *("--dataset_name", str(folder / "instances.jsonl"), "--split", "test"),
        *("--instance_ids", instance.instance_id),
        *("--predictions_path", str(folder / "predictions.jsonl")),
        *("--max_workers", "1", "--timeout", str(seconds)),
        *("--run_id", RUN, "--report_dir", str(folder)),
    ]


def write_harness_files(instance: Instance, patch: str, folder: Path) -> None:
    """``instances.jsonl`` and ``predictions.jsonl``."""
    rows = {"instances.jsonl": instance.row(), "predictions.jsonl": prediction(instance, patch)}
    for name, row in rows.items():
        (folder / name).write_text(json.dumps(row) + "\n", encoding="utf-8")


def judged_by_harness(instance: Instance, patch: str, seconds: int) -> Verdict:
    """The official harness' verdict, in its container of the instance.

    Raises:
        R2VError: if it gives none, with the last line that it said.
    """
    if not instance.eval_script:
        raise R2VError(
            f"{instance.instance_id}: the official harness needs the instance's 'eval_script'; use the current data set"
        )
    with tempfile.TemporaryDirectory(prefix="r2v-harness-") as name:
        folder = Path(name)
        write_harness_files(instance, patch, folder)
        command = harness_command(instance, folder, seconds)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        report = folder / "logs/run_evaluation" / RUN / MODEL / instance.instance_id / "report.json"
        if not report.is_file():
            if (report.parent / "run_instance.log").is_file() and done.returncode == 0:
                return lost(instance)
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise R2VError(f"{instance.instance_id}: the official harness gave no verdict; it said: {said}")
        return from_report(instance, json.loads(report.read_text(encoding="utf-8"))[instance.instance_id])
