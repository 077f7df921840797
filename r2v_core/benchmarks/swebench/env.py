"""One SWE-bench instance behind :class:`r2v_core.benchmarks.base.Environment`: look, edit, run, submit."""

from __future__ import annotations

from typing import Literal

from r2v_core.benchmarks.base import Outcome, Task, closed, not_started
from r2v_core.benchmarks.swebench.actions import Wanted, read_action
from r2v_core.benchmarks.swebench.expert import Move, hard_negatives, in_place, plan
from r2v_core.benchmarks.swebench.files import Overlay
from r2v_core.benchmarks.swebench.runtime import Runtime
from r2v_core.benchmarks.swebench.sources import is_test_file
from r2v_core.benchmarks.swebench.work import Effect, Workspace, act, render_observation
from r2v_core.trajectory import Observation

Labels = Literal["tests", "plan"]
OPENED = 6
"""Source files that exploration may open."""


class SweBenchEnv:
    """The agent's workspace. The hidden tests and the reference patch are asked, never shown.

    Progress of an action that changes files: more of the hidden tests pass than before, or fewer of the expert's edits
    are left; none where they pass already. Of ``submit``: they pass. Of ``view`` and of commands that change nothing:
    yes where it opens what the expert would edit next, none where it was shown before, else unknown, as it may help
    whoever reads it. With ``labels`` ``plan`` the tests run on ``submit`` alone: what the expert's plan doesn't tell is
    unknown, for ``submit`` until it is played. ``Outcome.remaining`` counts the expert's actions, ``submit`` included.
    """

    waiting_action = "run true"
    """Changes nothing."""

    def __init__(self, task: Task, runtime: Runtime, labels: Labels) -> None:
        self.task = task
        self._runtime = runtime
        self._labels = labels
        self._open = True
        self._started = False
        self._done = self._solved = False
        self._workspace = Workspace()
        self._shown: set[tuple[str, str]] = set()
        """What was run and opened, and on which files."""

    def reset(self) -> Outcome:
        """Start over with the repository as it was."""
        self._require_open()
        self._started, self._done, self._solved = True, False, False
        self._workspace, self._shown = Workspace(), set()
        return self._outcome("", None)

    def step(self, action: str) -> Outcome:
        """Carry out an action; anything that is none is answered and changes nothing."""
        self._require_started()
        if self._done:
            return self._outcome("The task is over.", False)
        wanted = read_action(action)
        if wanted.kind == "submit":
            self._done, self._solved = True, self._passes()
            said = "pass" if self._solved else "do not pass"
            return self._outcome(f"Submitted. The hidden tests {said}.", self._solved)
        effect = act(self._runtime, self._workspace, wanted)
        progress = self._progress(wanted, effect)
        if effect.done:
            self._shown.add(self._mark(wanted))
        self._workspace = effect.after
        return self._outcome(effect.feedback, progress)

    def admissible(self) -> list[str]:
        """Some of the actions that are always possible; none after the end."""
        self._require_started()
        if self._done:
            return []
        source = [name for name in self._runtime.names if name.endswith(".py") and not is_test_file(name)]
        return sorted({"submit", "run git diff", "run ls", *(f"view {name}" for name in source[:OPENED])})

    def hard_negatives(self) -> list[str]:
        """The expert's next edit with a mistake in it; none after the end."""
        self._require_started()
        return [] if self._done else hard_negatives(self._runtime, self._plan(self._workspace))

    def would_progress(self, action: str) -> bool | None:
        """What ``step(action).progress`` would be."""
        self._require_started()
        if self._done:
            return False
        wanted = read_action(action)
        if wanted.kind == "submit":
            return self._foreseen()
        return self._progress(wanted, act(self._runtime, self._workspace, wanted))

    def expert_action(self) -> str | None:
        """The first action of the plan, ``submit`` where it is empty; None after the end."""
        self._require_started()
        if self._done:
            return None
        moves = self._plan(self._workspace)
        return moves[0].action if moves else "submit"

    def close(self) -> None:
        """Nothing is held open; a closed environment refuses further use."""
        self._open = False

    def patch(self) -> str:
        """The workspace as a patch: what is submitted."""
        tree = self._workspace.overlay.tree
        return self._runtime.patch(tree).decode(errors="replace") if tree.entries else ""

    def _plan(self, workspace: Workspace) -> list[Move]:
        return plan(self._runtime, workspace, self._resolved)

    def _resolved(self, overlay: Overlay) -> bool:
        if self._labels == "plan":
            return in_place(self._runtime, overlay)
        return self._runtime.judge(overlay).resolved

    def _passes(self) -> bool:
        """Whether the hidden tests pass now."""
        return self._runtime.judge(self._workspace.overlay).resolved

    def _foreseen(self) -> bool | None:
        """What is known of the verdict beforehand; where the tests run on ``submit`` alone they don't run for this."""
        overlay = self._workspace.overlay
        if self._labels == "tests":
            return self._passes()
        return True if in_place(self._runtime, overlay) else None if overlay.tree.entries else False

    def _mark(self, wanted: Wanted) -> tuple[str, str]:
        what = f"{wanted.kind} {wanted.text} {wanted.path} {wanted.first} {wanted.last}"
        return what, self._workspace.overlay.tree.digest

    def _progress(self, wanted: Wanted, effect: Effect) -> bool | None:
        if not effect.done:
            return False
        before, after = self._workspace, effect.after
        if after.overlay.tree != before.overlay.tree:
            return self._edited(before, after)
        if after.window != before.window and len(self._plan(after)) < len(self._plan(before)):
            return True
        same = wanted.kind in ("edit", "create", "undo") or self._mark(wanted) in self._shown
        return False if same or (wanted.kind == "view" and after.window == before.window) else None

    def _edited(self, before: Workspace, after: Workspace) -> bool | None:
        if self._resolved(before.overlay):
            return False
        if self._edits(after) < self._edits(before):
            return True
        if self._labels == "plan":
            return None
        now, then = self._runtime.judge(before.overlay), self._runtime.judge(after.overlay)
        return then.resolved or then.score > now.score

    def _edits(self, workspace: Workspace) -> int:
        return sum(not move.opens for move in self._plan(workspace))

    def _outcome(self, feedback: str, progress: bool | None) -> Outcome:
        left = 0 if self._solved else None if self._done else len(self._plan(self._workspace)) + 1
        return Outcome(
            observation=Observation(state=render_observation(self._runtime, self._workspace), feedback=feedback),
            done=self._done,
            success=self._solved,
            score=1.0 if self._solved else self._score(),
            remaining=left,
            progress=progress,
            flags=self._runtime.judge(self._workspace.overlay).flags if self._done else [],
        )

    def _score(self) -> float:
        if self._labels == "plan" and not self._done:
            return 0.0
        return self._runtime.judge(self._workspace.overlay).score

    def _require_open(self) -> None:
        if not self._open:
            raise closed(self.task)

    def _require_started(self) -> None:
        self._require_open()
        if not self._started:
            raise not_started(self.task)
