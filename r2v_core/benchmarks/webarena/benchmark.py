"""WebArena (Zhou et al. 2024, arXiv:2307.13854): 812 tasks on six web sites that users set up for themselves.

The tasks come from the installed distribution ``libwebarena``, of which nothing but this file is used: its code needs
Playwright, NLTK, OpenAI's SDK, a model server's client and more. Any file of the same format does
(``benchmark.options.tasks`` or ``$WA_TASKS``). Where the sites are is said by ``WA_SHOPPING``, ``WA_SHOPPING_ADMIN``,
``WA_REDDIT``, ``WA_GITLAB``, ``WA_WIKIPEDIA`` and ``WA_MAP``; tasks are drawn for those in ``benchmark.options.sites``.

The sites keep what agents did to them. Setting them back is up to whoever runs them, before a stage that is to be
compared with another; nothing here does. Episodes that run side by side meet each other's changes.

This module says which tasks there are; :mod:`.env` plays them, :mod:`.verdict` decides them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.benchmarks.base import SPLITS, Concurrency, OpenModel, Task, known_splits
from r2v_core.benchmarks.web.process import INSTALL, find_chromium
from r2v_core.benchmarks.webarena.format import TaskConfig, read_file
from r2v_core.benchmarks.webarena.judge import AnswerJudge
from r2v_core.benchmarks.webarena.sites import SITES, Site, Sites
from r2v_core.digest import digest_of, rng
from r2v_core.errors import R2VError

FILE = "test.raw.json"
VARIABLE = "WA_TASKS"
INSTALL_TASKS = "pip install --no-deps -c constraints.txt libwebarena"


class WebArenaOptions(BaseModel):
    """``benchmark.options`` of WebArena."""

    model_config = ConfigDict(extra="forbid")

    tasks: str | None = Field(default=None, description="task file; null: $WA_TASKS, else that of libwebarena")
    sites: list[Site] = Field(
        default_factory=lambda: list(SITES), min_length=1, description="tasks that play on other sites are left out"
    )
    tasks_per_template: int = Field(default=0, ge=0, description="tasks of each template; 0: all of them")
    judge: str | None = Field(
        default="gpt-4o",
        description="teacher that judges answers to open questions; null: these tasks are left out",
    )
    hosts: list[Annotated[str, Field(pattern=r"^[\w.-]+$")]] = Field(
        default_factory=list, description="further machines that pages may load from, such as those of the map's tiles"
    )
    whole_page: bool = Field(default=False, description="show all of a page, not only what is in its window")
    quiet_s: float = Field(default=0.5, gt=0, description="seconds without loading after which a page is read")
    patience_s: float = Field(default=30.0, gt=0, description="seconds after which it is read in any case")


class WebArena:
    """A template is an intent with gaps, its tasks are ways of filling them; the data set numbers both."""

    name = "webarena"
    needs = "the task file of libwebarena, Chromium, and the sites, set up by you, at WA_SHOPPING, WA_REDDIT, …"
    action_form: ActionForm = "line"
    concurrency: Concurrency = "serial"
    instructions = (
        "You use web sites, shown as the elements of the page in front with their ids. Reply with one action and "
        "nothing else, for example: click('12'), fill('13', 'text'), select_option('14', 'option'), "
        "press('13', 'Enter'), scroll('down'), goto('address'), go_back(), new_tab(), tab_focus('0'). When the task is "
        "done reply stop('answer'), with the answer if one is asked for, or with 'N/A' if it can't be done."
    )
    Options = WebArenaOptions

    def __init__(self, options: WebArenaOptions, splits: Mapping[str, int], max_steps: int) -> None:
        self.options = options
        self.splits = known_splits(splits)
        self.max_steps = max_steps
        self._judge: AnswerJudge | None = None

    def ready(self) -> str | None:
        """None where tasks and browser are installed and every site answers."""
        file = self._file()
        if file is None:
            return f"the tasks are missing: {INSTALL_TASKS} (or set {VARIABLE} to a file of their format)"
        if not file.is_file():
            named = "benchmark.options.tasks" if self.options.tasks else VARIABLE
            return f"{named}: {file} does not exist; without it: {INSTALL_TASKS}"
        if find_chromium() is None:
            return f"no Chromium on this machine: {INSTALL}"
        return Sites.known().problem(self.options.sites)

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """One replicate's tasks, in the order of splits and templates; needs none of the sites.

        Raises:
            R2VError: if the file is not of the format, or has fewer templates than the splits ask for.
        """
        templates: dict[int, list[TaskConfig]] = defaultdict(list)
        file = self._file()
        assert file is not None, "ready() was not asked"
        for config in read_file(file):
            if set(config.sites) <= set(self.options.sites) and (self.options.judge or not config.eval.asks_a_model):
                templates[config.intent_template_id].append(config)
        numbers = sorted(templates)
        if sum(self.splits.values()) > len(numbers):
            raise R2VError(
                f"benchmark.splits asks for {sum(self.splits.values())} templates, {file.name} has {len(numbers)} for "
                "benchmark.options.sites and judge: lower the splits"
            )
        order = [numbers[i] for i in rng(seed, "webarena-splits").permutation(len(numbers))]
        tasks: list[Task] = []
        for split in SPLITS:
            taken, order = order[: self.splits.get(split, 0)], order[self.splits.get(split, 0) :]
            for number in taken:
                tasks += [self._task(config, split) for config in self._some(seed, templates[number])]
        if progress:
            progress(len(tasks), len(tasks))
        return tasks

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Any:
        """The task in a browser of its own."""
        from r2v_core.benchmarks.webarena.env import WebArenaEnv

        name = self.options.judge

        def judge() -> AnswerJudge:
            assert name is not None and open_model is not None
            self._judge = self._judge or AnswerJudge(open_model(name))
            return self._judge

        return WebArenaEnv(task, self.options, judge if name and open_model else None)

    def _some(self, seed: int, configs: list[TaskConfig]) -> list[TaskConfig]:
        """The template's tasks, or as many of them as are wanted, in their order."""
        configs = sorted(configs, key=lambda config: config.task_id)
        wanted = self.options.tasks_per_template or len(configs)
        draws = rng(seed, "webarena-tasks", configs[0].intent_template_id).permutation(len(configs))[:wanted]
        return [configs[i] for i in sorted(draws.tolist())]

    def _task(self, config: TaskConfig, split: Any) -> Task:
        options = config.model_dump(mode="json", exclude={"intent"}, exclude_unset=True)
        return Task(
            task_id=f"webarena-{config.task_id}",
            template_id=f"intent-{config.intent_template_id}",
            benchmark=self.name,
            family="+".join(sorted(config.sites)),
            goal=config.intent.strip(),
            split=split,
            max_steps=self.max_steps,
            content=digest_of([config.intent, options]),
            options=options,
        )

    def _file(self) -> Path | None:
        """The task file, which need not exist where a user named it; None where nobody did and none is installed."""
        named = self.options.tasks or os.environ.get(VARIABLE)
        if named:
            return Path(named)
        spec = find_spec("webarena")
        folders = (Path(place) for place in (spec.submodule_search_locations or ()) if spec) if spec else ()
        return next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
