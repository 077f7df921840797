"""A live MiniWoB++ page behind :class:`r2v_core.benchmarks.base.Environment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.base import Outcome, Task, closed, not_started
from r2v_core.benchmarks.web.actions import Act, act, parse
from r2v_core.benchmarks.web.chromium import Page, open_page
from r2v_core.benchmarks.web.page import carry_out, open_to, script, tree
from r2v_core.errors import R2VError
from r2v_core.trajectory import Observation

SETTLE_MS = 2000
"""How far the page's clock goes on after each action; nobody waits for it."""

HARMLESS = frozenset(["noop", "hover"])
ONE_FIELD = frozenset(["fill", "clear", "select_option"])
"""Actions that change one field: another value than the plan's brings nothing closer where it names every step."""


class MiniWobEnv:
    """One page. ``Outcome.remaining`` is the length of the expert's plan from here, None once nothing helps any more.

    Progress means that this plan became shorter, or that the page accepted the result. The page's own reward is the
    verdict: success where it is full (1), never by time.
    """

    waiting_action = "noop()"
    """Changes nothing; what the expert plays where no plan exists any more."""

    def __init__(self, task: Task, html: Path) -> None:
        self.task = task
        self._html = html
        self._twin: MiniWobEnv | None = None
        self._history: list[str] = []
        self._tried: dict[str, bool] = {}
        self._name: str = task.options["page"]
        if not (html / f"{self._name}.html").is_file():
            raise R2VError(
                f"Task {task.task_id}: the installed package miniwob has no page '{self._name}'; install the version "
                "that the tasks were made with, or make the task suite again"
            )
        self._url = (html / f"{self._name}.html").as_uri()
        self._page: Page | None = open_page(332, 214)
        try:
            source = script("miniwob/experts.js", "miniwob/page.js") + "\nwindow.r2vExperts = r2vExperts;"
            self._page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        except BaseException:
            self.close()
            raise
        self._facts: dict[str, Any] = {}
        self._plan: list[list[list[list[str | None]]]] = []
        self._last: Outcome | None = None
        self.goal = ""

    def reset(self) -> Outcome:
        """Start over: the page is loaded anew and its problem made from the task's seed."""
        page = self._open()
        self._last = None
        self._history, self._tried = [], {}
        page.go(self._url)
        self.goal = page.run(f"r2v.begin({json.dumps(str(self.task.options['seed']))})")
        self._last = self._look("")
        return self._last.model_copy(deep=True)

    def hard_negatives(self) -> list[str]:
        """Nothing beyond :meth:`admissible`: that has other elements and texts to go wrong with."""
        self._started()
        return []

    def step(self, action: str) -> Outcome:
        """Carry out one action; whatever the text, the answer is an observation."""
        before = self._started()
        parsed = parse(action)
        if before.done:
            problem = "The episode is over."
        elif isinstance(parsed, str):
            problem = parsed
        else:
            self._history.append(action)
            self._tried = {}
            self._last = self._look(carry_out(self._open(), parsed))
            return self._last.model_copy(deep=True)
        observation = Observation(state=before.observation.state, feedback=problem)
        self._last = before.model_copy(update={"observation": observation, "progress": False})
        return self._last.model_copy(deep=True)

    def admissible(self) -> list[str]:
        """Clicks, texts and options that elements in the observation take now, sorted; none after the end.

        Texts to fill in are those that the goal quotes and its numbers, else the first short ones on the page.
        """
        outcome = self._started()
        if outcome.done:
            return []
        found = [*self._useful(), *open_to(outcome.observation.state, self.goal, self._facts)]
        return sorted({one.text for one in found})

    def would_progress(self, action: str) -> bool:
        """What ``step(action).progress`` would be.

        The expert knows for most actions. For the others (keys, clicks on elements that hold, or lie in, one that the
        plan clicks, texts where elements are yet to come up) a second page is brought into this state and tries it.
        """
        parsed = parse(action)
        if self._started().done or isinstance(parsed, str):
            return False
        useful = self._useful()
        if _same(parsed) in map(_same, useful):
            return True
        if parsed.name in HARMLESS or parsed.bid not in self._facts:
            return False
        if parsed.name in ONE_FIELD and any(one.bid == parsed.bid and one.name in ONE_FIELD for one in useful):
            unsure = any(one[1] is None for group in self._plan for step in group for one in step)
        else:
            unsure = parsed.name == "press" or self._kin(parsed.bid, [one.bid for one in useful])
        return self._try(parsed.text) if unsure else False

    def expert_action(self) -> str | None:
        """The next action of the scripted expert; None after the end and where nothing helps any more."""
        self._started()
        useful = self._useful()
        return useful[0].text if useful else None

    def close(self) -> None:
        """Close the page; safe to call twice."""
        page, self._page = self._page, None
        twin, self._twin = self._twin, None
        if twin is not None:
            twin.close()
        if page is not None:
            page.close()

    def _try(self, action: str) -> bool:
        if action not in self._tried:
            if self._twin is None:
                self._twin = MiniWobEnv(self.task, self._html)
            self._twin.task = self.task
            self._twin.reset()
            for past in self._history:
                self._twin.step(past)
            self._tried[action] = bool(self._twin.step(action).progress)
        return self._tried[action]

    def _useful(self) -> list[Act]:
        """Actions that shorten the plan now."""
        steps = self._plan[0] if self._plan else []
        return [act([str(part) for part in one]) for step in steps for one in step if one and one[1] is not None]

    def _kin(self, bid: str, others: list[str]) -> bool:
        script = """((bid, others) => { const e = r2v.find(bid), label = e => e.closest('label');
            return others.map(r2v.find).some(o => o && e &&
                (o.contains(e) || e.contains(o) || (label(e) && label(e) === label(o)))); })"""
        return bool(self._open().run(f"{script}({json.dumps(bid)}, {json.dumps(others)})"))

    def _look(self, feedback: str) -> Outcome:
        """What the page shows once its clock has gone on, with its verdict; a page that was left has lost."""
        here = f"window.r2v && window.core && location.href.split('#')[0] === {json.dumps(self._url)}"
        look = f"(r2v.advance({SETTLE_MS}), r2v.look({json.dumps(self._name)}))"
        seen = self._open().run(f"{here} ? {look} : null")
        if seen is None:
            self._facts, self._plan = {}, []
            left = Observation(state="text 'Another page'", feedback="The page was left.")
            return Outcome(observation=left, done=True, progress=False)
        before = self._last
        self._facts = seen["facts"]
        self._plan = seen["plan"] or []
        done, reward = bool(seen["done"]), float(seen["reward"])
        success = done and reward > 0.999
        if done:
            feedback = "The page accepts the result." if success else "The page rejects the result."
        remaining = 0 if success else None if done or seen["plan"] is None else sum(map(len, self._plan))
        closer = before and before.remaining is not None and remaining is not None and remaining < before.remaining
        return Outcome(
            observation=Observation(state=tree(self._open(), self._facts), feedback=feedback),
            done=done,
            success=success,
            score=min(max(reward, 0.0), 1.0) if done else 0.0,
            remaining=remaining,
            progress=None if before is None else bool(closer),
        )

    def _open(self) -> Page:
        if self._page is None:
            raise closed(self.task)
        return self._page

    def _started(self) -> Outcome:
        self._open()
        if self._last is None:
            raise not_started(self.task)
        return self._last


def _same(action: Act) -> tuple[str, str, frozenset[str]]:
    """What an action does, equal for two ways of writing it."""
    if action.name == "clear":
        return "fill", action.bid, frozenset([""])
    return action.name, action.bid, frozenset(action.arguments[1:])
