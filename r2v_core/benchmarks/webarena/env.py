"""A live WebArena task behind :class:`r2v_core.benchmarks.base.Environment`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import ValidationError

from r2v_core.benchmarks.base import Outcome, Task, closed, not_started
from r2v_core.benchmarks.web.actions import ACTIONS, BROWSING, Act, parse
from r2v_core.benchmarks.web.page import carry_out, open_to, tree
from r2v_core.benchmarks.web.process import BrowserError, PageMoved
from r2v_core.benchmarks.web.tabs import ATTEMPTS, Tabs
from r2v_core.benchmarks.webarena.benchmark import WebArenaOptions
from r2v_core.benchmarks.webarena.format import TaskConfig
from r2v_core.benchmarks.webarena.helpers import call_helper
from r2v_core.benchmarks.webarena.login import log_in
from r2v_core.benchmarks.webarena.sites import Sites, task_sites
from r2v_core.benchmarks.webarena.verdict import Judge, decide
from r2v_core.errors import R2VError
from r2v_core.trajectory import Observation

SIZE = (1280, 720)
LONGEST = 2000
"""Characters of an action: posts and reviews are longer than what other pages take."""

NOTHING = "text 'This page shows nothing.'"


class WebArenaEnv:
    """One task in a browser of its own: fresh cookies at every :meth:`reset`, logged in where the task asks for it.

    What the sites keep is theirs: nothing of it is undone, neither by :meth:`reset` nor by :meth:`close`.

    The verdict is passed when the agent says ``stop('answer')``, and only then: an episode without it fails, where
    WebArena's own runner still looks at the last page. Progress and the number of actions left are unknown, and there
    is no expert; but what can't be carried out makes no progress, and ``stop`` does exactly where it succeeds.
    """

    def __init__(self, task: Task, options: WebArenaOptions, judge: Callable[[], Judge] | None) -> None:
        self.task = task
        self._options = options
        try:
            config = TaskConfig.model_validate({"intent": task.goal, **task.options})
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise R2VError(f"Task {task.task_id} is not a valid WebArena task: {where}: {first['msg']}") from None
        self._sites = task_sites(config.sites, task.task_id)
        self._config = TaskConfig.model_validate(self._sites.resolve(config.model_dump(exclude_unset=True)))
        for url in self._starts:
            if not self._sites.covers(url):
                raise R2VError(
                    f"Task {task.task_id} starts at '{url}', which is on none of its sites; correct the task file"
                )
        self._judge = judge() if judge and self._config.eval.asks_a_model else None
        self._tabs: Tabs | None = None
        self._closed = False
        self._facts: dict[str, Any] = {}
        self._last: Outcome | None = None
        self._foreseen: dict[str, bool] = {}

    @property
    def _starts(self) -> list[str]:
        return self._config.start_url.split(" |AND| ")

    def reset(self) -> Outcome:
        """Start over in a new browser, at the task's first address. The sites stay as they are."""
        self._open()
        old, self._tabs, self._last = self._tabs, None, None
        try:  # the old one goes last, so that Chromium need not start again
            hosts = self._sites.hosts | frozenset(self._options.hosts)
            self._tabs = Tabs(hosts, SIZE, self._options.quiet_s, self._options.patience_s)
        finally:
            if old is not None:
                old.close()
        tabs = self._tabs
        if self._config.geolocation:
            place = self._config.geolocation.model_dump() | {"accuracy": 1}
            granted = {"permissions": ["geolocation"], "browserContextId": tabs.front.context}
            tabs.front.chromium.call("Browser.grantPermissions", granted)
            tabs.front.call("Emulation.setGeolocationOverride", **place)
        for site in self._config.sites if self._config.require_login else ():
            log_in(tabs, site, self._sites)
        for i, url in enumerate(self._starts):
            if i:
                tabs.open()
            problem = tabs.go(url)
            tabs.settle()
            if problem:
                raise R2VError(
                    f"Task {self.task.task_id}: {url} can't be opened ({problem}); see that the site is running"
                )
        self._last = self._look("")
        return self._last.model_copy(deep=True)

    def step(self, action: str) -> Outcome:
        """Carry out one action; whatever the text, the answer is an observation."""
        before = self._started()
        parsed = parse(action, BROWSING, LONGEST)
        problem = "The episode is over." if before.done else self._refusal(parsed)
        if problem or isinstance(parsed, str):
            observation = Observation(state=before.observation.state, feedback=str(problem))
            self._last = before.model_copy(update={"observation": observation, "progress": False})
        elif parsed.name == "stop":
            success = self._verdict(parsed)
            said = "The answer was handed in."
            observation = Observation(state=before.observation.state, feedback=said)
            self._last = Outcome(
                observation=observation,
                done=True,
                success=success,
                score=float(success),
                remaining=0 if success else None,
                progress=success,
            )
        else:
            self._last = self._look(self._carry_out(parsed))
        return self._last.model_copy(deep=True)

    def admissible(self) -> list[str]:
        """Clicks, texts and options that elements in the observation take now, sorted; none after the end."""
        outcome = self._started()
        if outcome.done:
            return []
        return sorted({one.text for one in open_to(outcome.observation.state, self.task.goal, self._facts)})

    def hard_negatives(self) -> list[str]:
        """Nothing: whatever is done here is done to a site."""
        self._started()
        return []

    def would_progress(self, action: str) -> bool | None:
        """What ``step(action).progress`` would be, None where that will be unknown: most actions can't be tried."""
        parsed = parse(action, BROWSING, LONGEST)
        if self._started().done or isinstance(parsed, str) or self._refusal(parsed):
            return False
        return self._verdict(parsed) if parsed.name == "stop" else None

    def expert_action(self) -> str | None:
        """None: there is no scripted expert."""
        self._started()
        return None

    def close(self) -> None:
        """Close the browser; safe to call twice."""
        self._closed = True
        tabs, self._tabs = self._tabs, None
        if tabs is not None:
            tabs.close()

    def _refusal(self, action: Act | str) -> str:
        """What is wrong with an action that needs no trying, '' if it may be carried out."""
        if isinstance(action, str):
            return action
        if action.name in ACTIONS and action.name != "noop" and action.bid not in self._facts:
            return f"There is no element {action.bid}."
        if action.name == "scroll" and action.arguments[0] not in ("up", "down"):
            return "Scroll 'up' or 'down'."
        if action.name == "goto" and not self._sites.covers(self._sites.resolve(action.arguments[0])):
            known = ", ".join(f"__{site.upper()}__" for site in self._sites.addresses)
            return f"Only addresses on these sites can be opened: {known}."
        if action.name == "tab_focus" and action.arguments[0] not in map(str, range(len(self._browser().pages))):
            return f"There is no tab {action.arguments[0]}."
        return ""

    def _carry_out(self, action: Act) -> str:
        """Do it and wait for what comes of it; '' or what went wrong."""
        tabs, self._foreseen = self._browser(), {}
        was = tabs.address(tabs.front)
        try:
            problem = self._browse(action) if action.name not in ACTIONS else carry_out(tabs.front, action)
        except PageMoved:
            problem = ""  # that is what came of it
        except BrowserError as error:
            if not tabs.front.alive:
                raise
            problem = f"The page can't do that: {error}."
        tabs.settle()
        now = tabs.address(tabs.front)
        if now.startswith("http") and not self._sites.covers(now):  # another server on a machine that has a site
            tabs.go(was)
            tabs.settle()
            return "That leads away from the sites; the page before is shown again."
        return problem

    def _browse(self, action: Act) -> str:
        tabs = self._browser()
        match action.name:
            case "scroll":
                return str(tabs.run(f"window.r2v ? r2v.scroll({0.8 if action.arguments[0] == 'down' else -0.8}) : ''"))
            case "goto":
                problem = tabs.go(self._sites.resolve(action.arguments[0]))
                return f"That address can't be opened ({problem})." if problem else ""
            case "go_back" | "go_forward":
                return "" if tabs.turn(-1 if action.name == "go_back" else 1) else "There is no such page."
            case "new_tab":
                tabs.open()
            case "tab_focus":
                tabs.front = tabs.pages[int(action.arguments[0])]
            case "tab_close":
                tabs.drop(tabs.front)
        return ""

    def _verdict(self, stop: Act) -> bool:
        """Whether the task is done if the agent stops here with this answer; the page in front is left as it is."""
        answer = self._sites.resolve(stop.arguments[0])
        if answer not in self._foreseen:
            try:
                view = BrowserView(self._browser(), self._sites)
                self._foreseen[answer] = decide(self._config.eval, self._config.intent, answer, view, self._judge)
            except R2VError as error:
                raise R2VError(f"Task {self.task.task_id} can't be decided: {error}") from None
        return self._foreseen[answer]

    def _look(self, feedback: str) -> Outcome:
        tabs, whole = self._browser(), self._options.whole_page
        seen, page = self._read()
        lines = [self._tab(i) for i in range(len(tabs.pages))]
        lines += ["text 'The page goes on above.'"] if seen["above"] and not whole else []
        lines.append(self._sites.shown(page) or NOTHING)
        lines += ["text 'The page goes on below.'"] if seen["below"] and not whole else []
        self._facts = seen["facts"]
        return Outcome(observation=Observation(state="\n".join(lines), feedback=feedback))

    def _read(self) -> tuple[dict[str, Any], str]:
        """Facts and text of the page in front; both of one document, whatever it does meanwhile."""
        tabs = self._browser()
        for _ in range(ATTEMPTS):
            before = tabs.front.traffic.documents
            with suppress(PageMoved):
                seen = tabs.front.run("window.r2v ? r2v.view() : null")
                if seen is None:
                    break
                hidden = frozenset() if self._options.whole_page else frozenset(seen["away"])
                text = tree(tabs.front, seen["facts"], hidden)
                if tabs.front.traffic.documents == before:
                    return seen, text
            tabs.settle()
        return {"facts": {}, "above": False, "below": False}, ""

    def _tab(self, number: int) -> str:
        tabs = self._browser()
        page = tabs.pages[number]
        here = self._sites.shown(tabs.address(page)).replace("'", "%27")
        return f"text 'Tab {number}{' (in front)' if page is tabs.front else ''}: {here}'"

    def _open(self) -> None:
        if self._closed:
            raise closed(self.task)

    def _browser(self) -> Tabs:
        assert self._tabs is not None, "reset() opens it"
        return self._tabs

    def _started(self) -> Outcome:
        self._open()
        if self._last is None:
            raise not_started(self.task)
        return self._last


class BrowserView:
    """The agent's browser as evaluators use it."""

    def __init__(self, tabs: Tabs, sites: Sites) -> None:
        self._tabs = tabs
        self._sites = sites

    def address(self) -> str:
        """Where the page in front is."""
        return self._tabs.address(self._tabs.front)

    def source(self) -> str:
        """Its HTML, as the site made it."""
        return str(self._tabs.run("window.r2v ? r2v.source() : document.documentElement.outerHTML"))

    def value(self, script: str) -> str:
        """A JavaScript expression's value there, as text; '' where it fails or is null."""
        try:
            return str(self._tabs.run(f"(value => value == null ? '' : String(value))({script})"))
        except BrowserError:
            if not self._tabs.front.alive:
                raise
            return ""

    @contextmanager
    def aside(self, url: str) -> Iterator[bool]:
        """Another page in front for a while; whether it could be opened."""
        with self._tabs.aside(url) as opened:
            yield opened

    def helper(self, call: str) -> str:
        """What a helper function of the task format answers."""
        return call_helper(call, self._sites, self.value)
