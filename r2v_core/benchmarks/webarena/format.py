"""The format of WebArena's task files: a JSON list of tasks, each with what decides it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from r2v_core.benchmarks.webarena.sites import Site
from r2v_core.errors import R2VError


class Open(BaseModel):
    """Notes of the annotators, and keys that nothing here depends on, are passed over."""

    model_config = ConfigDict(extra="ignore")


class Closed(BaseModel):
    """A way of deciding that is not known must not be passed over."""

    model_config = ConfigDict(extra="forbid")


class Answers(Closed):
    """What the agent's answer has to be (``string_match``): all that is given counts."""

    exact_match: str | None = None
    must_include: list[str] | None = None
    fuzzy_match: list[str] | Literal["N/A"] | None = None


class Contents(Closed):
    """What a page has to hold: the first that is given counts; `` |OR| `` parts phrases of which one is enough."""

    exact_match: str | None = None
    must_include: list[str] | None = None

    @model_validator(mode="after")
    def _something(self) -> Contents:
        if self.exact_match is None and self.must_include is None:
            raise ValueError("exact_match or must_include is needed")
        return self


class Target(Closed):
    """One look at a page (``program_html``)."""

    url: str = Field(description="'last' for the page in front, an address, or func:helper(…)")
    locator: str = Field(description="JavaScript on the page, func:helper(…), or '' for all of its HTML")
    required_contents: Contents
    prep_actions: list[str] = Field(default_factory=list, description="JavaScript to run before")


class Evaluation(Open):
    """What decides a task; all of its kinds have to agree."""

    eval_types: list[Literal["string_match", "url_match", "program_html"]] = Field(min_length=1)
    reference_answers: Answers | None = None
    reference_url: str | None = None
    program_html: list[Target] = Field(default_factory=list)
    string_note: str = ""
    url_note: Literal["GOLD in PRED"] = "GOLD in PRED"

    @property
    def asks_a_model(self) -> bool:
        """Whether a language model may have to judge the answer."""
        answers = self.reference_answers if "string_match" in self.eval_types else None
        return answers is not None and answers.fuzzy_match is not None


class Place(Closed):
    """Where the browser says that it is."""

    latitude: float
    longitude: float


class TaskConfig(Open):
    """One task."""

    task_id: int
    intent_template_id: int
    intent: str = Field(min_length=1)
    sites: list[Site] = Field(min_length=1)
    start_url: str = Field(description="`` |AND| `` parts the addresses of several tabs")
    require_login: bool = False
    geolocation: Place | None = None
    eval: Evaluation


_FILE = TypeAdapter(list[TaskConfig])


def read_file(path: Path) -> list[TaskConfig]:
    """The tasks of a file.

    Raises:
        R2VError: naming the file and the first thing in it that is not of the format.
    """
    try:
        tasks = _FILE.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        said = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_context=False)[0]
            said = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise R2VError(f"{path}: not a WebArena task file ({said.splitlines()[0]})") from None
    numbers = [task.task_id for task in tasks]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise R2VError(f"{path}: task_id {twice} is given twice; keep one of the two")
    return tasks
