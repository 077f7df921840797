"""One HumanEval problem behind :class:`r2v_core.benchmarks.base.Environment`: write, run, repair, submit."""

from __future__ import annotations

import re

from r2v_core.benchmarks.actions import program
from r2v_core.benchmarks.base import Outcome, Task, closed, not_started
from r2v_core.benchmarks.humaneval.data import Problem
from r2v_core.benchmarks.humaneval.hard_negatives import hard_negatives
from r2v_core.benchmarks.humaneval.judge import Trial, Verdict, trial, verdict
from r2v_core.trajectory import Observation

WORDS = ("run", "submit")
LONGEST = 20_000
"""Characters of the longest program taken."""
SHOWN = 3
"""Wrong examples described after a run."""


class HumanEvalEnv:
    """The agent's program and what it knows of it. The hidden tests are asked, never shown.

    Progress of a program: it passes more of the hidden tests than the present one. Of ``submit``: the present program
    passes all. Of ``run``: unknown, as it may help whoever reads its result; none where that result is shown already.
    ``Outcome.remaining`` is 2 (write, submit), 1 once the program is right, None after a wrong submission.
    """

    waiting_action = "run"
    """Changes nothing of the program."""

    def __init__(self, task: Task, problem: Problem, sandbox: str) -> None:
        self.task = task
        self._problem = problem
        self._sandbox = sandbox
        self._defines = re.compile(rf"^(async\s+)?(def\s+{problem.entry_point}\b|{problem.entry_point}\s*=)", re.M)
        self._open = True
        self._started = False
        self._program = ""
        self._verdict = Verdict(0, 1, False)
        self._trial: Trial | None = None
        self._done = False

    def reset(self) -> Outcome:
        """Start over, without a program."""
        self._require_open()
        self._started, self._done = True, False
        self._program, self._verdict, self._trial = "", Verdict(0, 1, False), None
        return self._outcome("", None)

    def step(self, action: str) -> Outcome:
        """Run, submit, or take the text as the new program; anything else is answered and changes nothing."""
        self._require_started()
        if self._done:
            return self._outcome("The task is over.", False)
        wanted = self._read(action)
        progress = self._progress(wanted)
        if wanted == "submit":
            self._done = True
            verdict_ = "passes" if self._verdict.solved else "does not pass"
            return self._outcome(f"Submitted. The program {verdict_} the hidden tests.", progress)
        if wanted == "run":
            return self._outcome(self._run(), progress)
        if not wanted:
            name = self._problem.entry_point
            return self._outcome(f"Not done: reply with a program that defines {name}, or run, or submit.", progress)
        self._program, self._trial = wanted, None
        self._verdict = verdict(self._problem, wanted, self._sandbox)
        return self._outcome("The program is in place.", progress)

    def admissible(self) -> list[str]:
        """The two words; programs can't be listed. None after the end."""
        self._require_started()
        return [] if self._done else list(WORDS)

    def hard_negatives(self) -> list[str]:
        """Reference solutions with one thing changed; none after the end."""
        self._require_started()
        return [] if self._done else hard_negatives(self._problem)

    def would_progress(self, action: str) -> bool | None:
        """What ``step(action).progress`` would be."""
        self._require_started()
        return False if self._done else self._progress(self._read(action))

    def expert_action(self) -> str | None:
        """The reference solution until the program is right, then ``submit``; None after the end."""
        self._require_started()
        if self._done:
            return None
        return "submit" if self._verdict.solved else self._problem.solution

    def close(self) -> None:
        """Nothing is held open; a closed environment refuses further use."""
        self._open = False

    def _read(self, action: str) -> str:
        """``run``, ``submit``, a program, or nothing where the text is none of these."""
        text = program(action)
        word = text.lower().rstrip(".")
        if word in WORDS:
            return word
        return text if len(text) <= LONGEST and _is_text(text) and self._defines.search(text) else ""

    def _progress(self, wanted: str) -> bool | None:
        """Of an action as :meth:`_read` gives it."""
        present = self._verdict
        if wanted == "run":
            return None if self._program and self._trial is None else False
        if wanted == "submit":
            return present.solved
        if not wanted or present.solved:
            return False
        new = verdict(self._problem, wanted, self._sandbox)
        return new.solved or new.passed > present.passed

    def _run(self) -> str:
        """Run the visible examples; what the agent is told."""
        if not self._program:
            return "There is no program to run."
        self._trial = found = trial(self._problem, self._program, self._sandbox)
        if not found.total and not found.problem:
            return "The task has no examples to run; the program loads without an error."
        lines = [f"{found.right} of {found.total} examples are right."]
        lines += [f"The run was cut short: {found.problem}."] if found.problem else []
        lines += found.wrong[:SHOWN]
        return "\n".join(lines)

    def _outcome(self, feedback: str, progress: bool | None) -> Outcome:
        solved = self._done and self._verdict.solved
        return Outcome(
            observation=Observation(state=self._state(), feedback=feedback),
            done=self._done,
            success=solved,
            score=1.0 if self._verdict.solved else self._verdict.passed / self._verdict.total,
            remaining=0 if solved else None if self._done else 1 if self._verdict.solved else 2,
            progress=progress,
        )

    def _state(self) -> str:
        if not self._program:
            return "There is no program yet."
        found = self._trial
        told = "not run yet" if found is None else found.problem or f"{found.right} of {found.total} examples right"
        return f"The program ({told}):\n{self._program}"

    def _require_open(self) -> None:
        if not self._open:
            raise closed(self.task)

    def _require_started(self) -> None:
        self._require_open()
        if not self._started:
            raise not_started(self.task)


def _is_text(text: str) -> bool:
    """Whether a text can be a file's content: no null, nothing that UTF-8 can't hold."""
    try:
        return "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False
