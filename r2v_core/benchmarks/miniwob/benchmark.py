"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018, arXiv:1802.08802): small web tasks in a real Chromium, with experts.

The pages come from the package ``miniwob``. What an agent sees is Chromium's accessibility tree, elements with ids;
what it says is one action in BrowserGym's syntax (``click('12')``); the page's own reward is the verdict.

BrowserGym itself is not used: its ``browsergym-miniwob`` pins Playwright 1.44 and greenlet 3.0, opens a second browser
for every environment's chat window, and sleeps for real before each observation. The goals are the pages' own, as
BrowserGym's are, and so are seeds (``Math.seedrandom``). Different: episodes have no time limit, timers and dates of a
page follow a clock that only its environment moves, animations are off, and success needs the page's full reward, where
BrowserGym takes any positive one.

This module says which tasks there are; :mod:`.env` plays them, ``experts.js`` solves them. Importing it
needs neither package nor browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.benchmarks.base import SPLITS, Concurrency, OpenModel, Task, known_splits
from r2v_core.benchmarks.web.chromium import browser
from r2v_core.benchmarks.web.process import INSTALL, find_chromium
from r2v_core.digest import derive_seed, digest_of, rng
from r2v_core.errors import R2VError, nearest

TEMPLATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "click-button": ("click", ("click-button", "unicode-test")),
    "click-button-sequence": ("click", ("click-button-sequence",)),
    "click-checkboxes": ("choose", ("click-checkboxes",)),
    "click-collapsible": ("navigate", ("click-collapsible", "click-collapsible-2")),
    "click-dialog": ("click", ("click-dialog", "click-dialog-2")),
    "click-link": ("click", ("click-link",)),
    "click-option": ("choose", ("click-option",)),
    "click-scroll-list": ("choose", ("click-scroll-list",)),
    "click-tab": ("navigate", ("click-tab", "click-tab-2")),
    "click-test": ("click", ("click-test", "click-test-2")),
    "click-widget": ("click", ("click-widget",)),
    "choose-list": ("choose", ("choose-list",)),
    "enter-date": ("type", ("enter-date",)),
    "enter-password": ("type", ("enter-password",)),
    "enter-text": ("type", ("enter-text", "enter-text-2")),
    "enter-time": ("type", ("enter-time",)),
    "find-word": ("read", ("find-word",)),
    "focus-text": ("click", ("focus-text", "focus-text-2")),
    "form-sequence": ("choose", ("form-sequence-2",)),
    "login-user": ("type", ("login-user",)),
    "navigate-tree": ("navigate", ("navigate-tree",)),
    "odd-or-even": ("choose", ("odd-or-even",)),
    "read-table": ("read", ("read-table", "read-table-2")),
    "search-engine": ("navigate", ("search-engine",)),
    "simple-arithmetic": ("read", ("simple-algebra", "simple-arithmetic")),
    "text-transform": ("read", ("text-transform",)),
    "use-autocomplete": ("type", ("use-autocomplete-nodelay",)),
}
"""Template → family, MiniWoB++ tasks. Tasks that are variants of one page share a template, so that no split has a
variant of another's. Each task has an expert in ``experts.js``."""

ATTEMPTS = 8
"""Seeds tried for one task before its page is called too alike; some pages differ in their layout only."""


def _all_templates() -> list[str]:
    return list(TEMPLATES)


class MiniWobOptions(BaseModel):
    """``benchmark.options`` of MiniWoB++."""

    model_config = ConfigDict(extra="forbid")

    templates: list[str] = Field(default_factory=_all_templates, description="templates to draw the splits from")
    tasks_per_template: int = Field(default=3, ge=1, le=100, description="tasks (seeds of a page) of each template")

    @field_validator("templates")
    @classmethod
    def _known(cls, templates: list[str]) -> list[str]:
        unknown = [name for name in templates if name not in TEMPLATES]
        if unknown:
            raise ValueError(f"unknown template '{unknown[0]}'.{nearest(unknown[0], TEMPLATES)}")
        if len(set(templates)) < len(templates):
            raise ValueError("a template is listed twice")
        return templates


class MiniWob:
    """A template is one MiniWoB++ page (or two that are variants of each other), its tasks are seeds of it."""

    name = "miniwob"
    needs = "the package miniwob and Chromium"
    action_form: ActionForm = "line"
    concurrency: Concurrency = "serial"
    instructions = (
        "You use a web page, shown as its elements with their ids. Reply with one action and nothing else, for "
        "example: click('12'), fill('13', 'text'), select_option('14', 'option'), press('13', 'Enter')."
    )
    Options = MiniWobOptions

    def __init__(self, options: MiniWobOptions, splits: Mapping[str, int], max_steps: int) -> None:
        self.splits = known_splits(splits)
        wanted = sum(splits.values())
        if wanted > len(options.templates):
            raise R2VError(
                f"benchmark.splits asks for {wanted} templates, benchmark.options.templates has "
                f"{len(options.templates)}: lower the splits (benchmark.options.tasks_per_template gives more tasks)"
            )
        self.options = options
        self.max_steps = max_steps

    def ready(self) -> str | None:
        """None where the pages and a browser are installed."""
        if find_spec("miniwob") is None:
            return "the package miniwob is missing: pip install -c constraints.txt -e '.[miniwob]'"
        return None if find_chromium() else f"no Chromium on this machine: {INSTALL}"

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """One replicate's tasks, in the order of splits, templates and seeds of a page.

        Each page is opened once, to read its goal and to see that the expert's plan fits into ``max_steps``.

        Raises:
            R2VError: if a page's plan is longer than ``max_steps`` for :data:`ATTEMPTS` seeds.
        """
        order = [
            self.options.templates[i] for i in rng(seed, "miniwob-splits").permutation(len(self.options.templates))
        ]
        slots = []
        for split in SPLITS:
            taken, order = order[: self.splits.get(split, 0)], order[self.splits.get(split, 0) :]
            slots += [(split, name, i) for name in taken for i in range(self.options.tasks_per_template)]
        tasks: list[Task] = []
        known: set[str] = set()
        with browser():
            for split, template, i in slots:
                family, pages = TEMPLATES[template]
                draft = Task(
                    task_id=f"{template}-{i}",
                    template_id=template,
                    benchmark=self.name,
                    family=family,
                    goal="",
                    split=split,
                    max_steps=self.max_steps,
                    content="",
                    options={"page": pages[i % len(pages)]},
                )
                tasks.append(self._make(seed, draft, known))
                known.add(tasks[-1].content)
                if progress:
                    progress(len(tasks), len(slots))
        return tasks

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Any:
        """The live page of a task."""
        from r2v_core.benchmarks.miniwob.env import MiniWobEnv

        return MiniWobEnv(task, pages_folder())

    def _make(self, seed: int, draft: Task, known: set[str]) -> Task:
        """The draft with a seed, its goal and its content: the first seed that is new, else the first that fits."""
        page, fitting = draft.options["page"], []
        environment = self.open(draft, Path())
        try:
            for attempt in range(ATTEMPTS):
                page_seed = derive_seed(seed, "miniwob", page, draft.task_id, attempt) % 10**9
                environment.task = draft.model_copy(update={"options": {"page": page, "seed": page_seed}})
                outcome = environment.reset()
                if outcome.remaining is None or not 0 < outcome.remaining <= self.max_steps:
                    continue
                content = digest_of([page, environment.goal, outcome.observation.state])
                changes = {"goal": environment.goal, "content": content, "task_id": f"{page}-{page_seed}"}
                fitting.append(environment.task.model_copy(update=changes))
                if content not in known:
                    return fitting[-1]
        finally:
            environment.close()
        if not fitting:
            raise R2VError(
                f"MiniWoB++ task '{page}': the expert needs more than benchmark.max_steps = {self.max_steps} actions; "
                f"raise it or leave '{draft.template_id}' out of benchmark.options.templates"
            )
        return fitting[0]


def pages_folder() -> Path:
    """Where the installed package has its pages."""
    spec = find_spec("miniwob")
    assert spec is not None and spec.submodule_search_locations, "ready() was not asked"
    return Path(spec.submodule_search_locations[0]) / "html" / "miniwob"
