"""A live MiniWoB++ page behind :class:`r2v_core.benchmarks.base.Environment`."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.accessibility import SHOWN, describe
from r2v_core.benchmarks.base import Outcome, Task
from r2v_core.benchmarks.chromium import Page, open_page
from r2v_core.benchmarks.miniwob_actions import Act, act, parse
from r2v_core.errors import R2VError
from r2v_core.trajectory import Observation

SETTLE_MS = 2000
"""How far the page's clock goes on after each action; nobody waits for it."""

SCRIPTS = ("miniwob_experts.js", "miniwob_page.js")
HARMLESS = frozenset(["noop", "hover"])
ONE_FIELD = frozenset(["fill", "clear", "select_option"])
"""Actions that change one field: another value than the plan's brings nothing closer where it names every step."""

KEYS: dict[str, tuple[int, str]] = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "Backspace": (8, ""),
    "Delete": (46, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "Space": (32, " "),
}
"""Name of a key → its Windows key code, the text that it types. Besides these, any single letter or digit."""


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
            raise R2VError(f"Task {task.task_id}: the installed package miniwob has no page '{self._name}'")
        self._url = (html / f"{self._name}.html").as_uri()
        self._page: Page | None = open_page(332, 214)
        try:
            script = "\n".join(files("r2v_core.benchmarks").joinpath(name).read_text("utf-8") for name in SCRIPTS)
            self._page.call(
                "Page.addScriptToEvaluateOnNewDocument", source=script + "\nwindow.r2vExperts = r2vExperts;"
            )
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

    def slips(self) -> list[str]:
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
            self._last = self._look(self._carry_out(parsed))
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
        texts = re.findall(r'"([^"]+)"|(\S*\d\S*)', self.goal) or re.findall(
            r"(?<= )'(\w[^']{0,19})'()", outcome.observation.state
        )
        words = list(dict.fromkeys(quoted or number for quoted, number in texts))[:5]
        found = self._useful()
        for bid in SHOWN.findall(outcome.observation.state):
            fact = self._facts.get(bid, {"clickable": False, "fillable": False, "options": None})
            found += [Act("click", (bid,))] if fact["clickable"] else []
            found += [Act("fill", (bid, word)) for word in words if fact["fillable"]]
            found += [Act("select_option", (bid, option)) for option in fact["options"] or ()]
        return sorted({one.text for one in found})

    def peek(self, action: str) -> bool:
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

    def _carry_out(self, action: Act) -> str:
        """Do it; '' or what is wrong."""
        if action.name == "noop":
            return ""
        if action.name == "press":
            return self._press(action)
        name, arguments = {
            "fill": ("fill", action.arguments),
            "clear": ("fill", (action.bid, "")),
            "select_option": ("select", (action.bid, action.arguments[1:])),
        }.get(action.name, (action.name, (action.bid,)))
        return str(self._open().run(f"r2v.{name}(...{json.dumps(arguments)})"))

    def _press(self, action: Act) -> str:
        key = action.arguments[1]
        if key not in KEYS and not (len(key) == 1 and key.isascii() and key.isalnum()):
            return f"Unknown key '{key[:20]}'; known: {', '.join(KEYS)}, single letters and digits."
        page = self._open()
        problem = str(page.run(f"r2v.focus({json.dumps(action.bid)})"))
        if problem:
            return problem
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        event = {"key": " " if key == "Space" else key, "windowsVirtualKeyCode": code}
        page.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        page.call("Input.dispatchKeyEvent", type="keyUp", **event)
        return ""

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
            observation=Observation(state=self._tree(), feedback=feedback),
            done=done,
            success=success,
            score=min(max(reward, 0.0), 1.0) if done else 0.0,
            remaining=remaining,
            progress=None if before is None else bool(closer),
        )

    def _tree(self) -> str:
        page = self._open()
        bids: dict[int, str] = {}
        stack = [page.call("DOM.getDocument", depth=-1)["root"]]
        while stack:
            node = stack.pop()
            attributes = node.get("attributes", [])
            if "bid" in attributes[::2]:
                bids[node["backendNodeId"]] = attributes[attributes.index("bid") + 1]
            stack += node.get("children", [])
        listening = frozenset(bid for bid, fact in self._facts.items() if fact["listening"])
        return describe(page.call("Accessibility.getFullAXTree")["nodes"], bids, listening)

    def _open(self) -> Page:
        if self._page is None:
            raise RuntimeError(f"environment of task {self.task.task_id} is closed")
        return self._page

    def _started(self) -> Outcome:
        self._open()
        if self._last is None:
            raise RuntimeError(f"environment of task {self.task.task_id} needs reset() first")
        return self._last


def _same(action: Act) -> tuple[str, str, frozenset[str]]:
    """What an action does, equal for two ways of writing it."""
    if action.name == "clear":
        return "fill", action.bid, frozenset([""])
    return action.name, action.bid, frozenset(action.arguments[1:])
