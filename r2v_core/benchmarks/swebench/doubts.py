"""Whether what a test run says is what pytest found: two channels that agree, and a control that fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r2v_core.benchmarks.swebench.data import END, START, Instance
from r2v_core.benchmarks.swebench.judge import MARKS, statuses

PASSING = ("PASSED", "XFAIL")
FAILING = ("FAILED", "ERROR")
_OUTCOMES = {
    ("passed", False): "PASSED",
    ("passed", True): "XPASS",
    ("failed", False): "FAILED",
    ("failed", True): "FAILED",
    ("skipped", False): "SKIPPED",
    ("skipped", True): "XFAIL",
}
"""Outcome of a report and whether it was expected to fail → the word in a log."""


@dataclass(frozen=True)
class Run:
    """A run of the hidden tests."""

    printed: str
    """Everything that the command printed, between the official harness' markers."""
    log: str
    """What is graded: pytest's records in the same form, or what was printed where pytest did not run."""
    records: list[Any] | None
    """None where something else than pytest wrote there."""
    status: int | None
    controlled: frozenset[str]
    """Tests that had to fail."""


def read_answer(instance: Instance, answer: Mapping[str, Any]) -> Run:
    """A worker's answer."""
    printed, records, status = str(answer["log"]), answer.get("records"), answer.get("status")
    log = printed
    if uses_pytest(instance) and status is not None:
        log = "\n".join([START, *_lines(records or []), END, f"{MARKS['exit_code']}: {status}", ""])
    return Run(printed, log, records, status, frozenset(answer.get("controlled", ())))


def uses_pytest(instance: Instance) -> bool:
    """Whether the tests are run by pytest, so that there are records."""
    return "pytest" in instance.test_command


def _lines(records: list[Any]) -> list[str]:
    """A line for each test, as pytest's summary has it."""
    found: dict[str, str] = {}
    for what, *fact in records:
        if what != "test":
            continue
        name, when, outcome, expected = fact
        word = _OUTCOMES.get((outcome, expected), "FAILED")
        if word == "FAILED":
            found[name] = "FAILED" if when == "call" else "ERROR"
        elif (when == "call" or word in ("SKIPPED", "XFAIL")) and found.get(name) not in FAILING:
            found[name] = word  # the last one is the test's own, those before are of its subtests
    return [f"{word} {name}" for name, word in found.items()]


def contradiction(instance: Instance, run: Run) -> str:
    """How what was printed and how it ended contradicts pytest's records; empty where it does not."""
    if not uses_pytest(instance) or run.status is None:
        return ""
    if run.records is None:
        return "something else wrote to pytest's records"
    recorded = statuses(instance, run.log)
    printed = statuses(instance, run.printed)
    invented = [name for name, word in printed.items() if word in PASSING and recorded.get(name) not in PASSING]
    if invented:
        return f"{len(invented)} printed results that pytest did not report, such as {invented[0]}"
    passed = any(word in PASSING for word in recorded.values())
    ended = [fact[0] for what, *fact in run.records if what == "end"]
    if passed and ended[-1:] != [run.status]:
        return f"exit status {run.status}, which pytest did not give"
    return ""


def watched(run: Run) -> frozenset[str]:
    """How the fix reached into the process of its tests."""
    return frozenset(fact[0] for what, *fact in run.records or () if what == "watched")


def control_passed(instance: Instance, run: Run, control: Run) -> str:
    """How a control shows that its tests did not decide; empty where it fails as it has to."""
    passed = {name for name, word in statuses(instance, run.log).items() if word in PASSING}
    had_to = {
        name for name in passed & {*instance.fail_to_pass, *instance.pass_to_pass} if _plain(name) in control.controlled
    }
    found = statuses(instance, control.log)
    wrong = sorted(name for name in had_to if found.get(name) in PASSING)
    if wrong:
        return f"{len(wrong)} tests that had to fail passed, such as {wrong[0]}"
    if had_to and not any(found.get(name) in FAILING for name in had_to):
        return "none of the tests that had to fail was reported"
    return contradiction(instance, control)


def _plain(name: str) -> str:
    """A test's name without its parameters."""
    return name.partition("[")[0]
