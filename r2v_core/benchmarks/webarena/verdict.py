"""What decides a WebArena task (Zhou et al. 2024, arXiv:2307.13854), written from the task format's description.

Three kinds, and a task may have several; all have to agree:

- ``string_match``: the agent's answer is a given text, holds given phrases, or means the same to a language model;
- ``url_match``: the page in front is one of the given addresses;
- ``program_html``: pages hold given texts once the agent has stopped, found by JavaScript or by asking a site.

Nothing of it changes a page that the agent sees. Different from the published evaluators: the judge is whichever model
the config names, with a prompt of our own; an unreadable judgement counts against the answer after it was asked for
once more; and what JavaScript can't find is an empty text, also where it answers ``null``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from r2v_core.benchmarks.webarena.format import Answers, Contents, Evaluation, Target
from r2v_core.errors import R2VError

Same = Callable[[str, str, str], bool]
"""(question, reference, answer) → whether a language model takes them for the same."""

OR = " |OR| "
_APART = re.compile(r"([\[\](){}<>;@#$%&?!\"“”‘])|([:,])(?!\d)|(\.+)(?=\s|$)|'(?=\s|$)|(?<!\w)'")
"""Signs that stand by themselves when a text is cut into words: most always, some by what follows."""


class Judge(Protocol):
    """A language model that reads answers."""

    def same(self, question: str, reference: str, answer: str) -> bool:
        """Whether the answer to a question means what the reference says."""
        ...

    def same_reason(self, question: str, reference: str, answer: str) -> bool:
        """Whether an answer gives the reason for which a task can't be done."""
        ...


class Browser(Protocol):
    """The agent's browser as evaluators use it."""

    def address(self) -> str:
        """Where the page in front is."""
        ...

    def source(self) -> str:
        """Its HTML."""
        ...

    def value(self, script: str) -> str:
        """A JavaScript expression's value there, as text; '' where it fails."""
        ...

    def aside(self, url: str) -> AbstractContextManager[bool]:
        """Another page in front for a while; whether it could be opened."""
        ...

    def helper(self, call: str) -> str:
        """What a helper function of the task format answers, called as the task file writes it."""
        ...


def decide(evaluation: Evaluation, intent: str, answer: str, browser: Browser, judge: Judge | None) -> bool:
    """The verdict on a finished task.

    Raises:
        R2VError: if a site or the judge can't be asked.
    """
    kinds: dict[str, Callable[[], bool]] = {
        "string_match": lambda: answered(evaluation, intent, answer, judge),
        "url_match": lambda: arrived(evaluation.reference_url or "", browser.address()),
        "program_html": lambda: all(found(target, browser) for target in evaluation.program_html),
    }
    return all(kinds[kind]() for kind in evaluation.eval_types)


def answered(evaluation: Evaluation, intent: str, answer: str, judge: Judge | None) -> bool:
    """``string_match``: every kind of reference answer that the task has is met."""
    references, answer = evaluation.reference_answers or Answers(), plain(answer)
    if references.exact_match is not None and not equal(references.exact_match, answer):
        return False
    phrases = references.must_include or []
    if not all(includes(phrase, answer, whole_word=len(phrases) == 1) for phrase in phrases):
        return False
    if references.fuzzy_match is None:
        return True
    if references.fuzzy_match == "N/A" and equal("N/A", answer):
        return True
    if not plain(answer):
        return False
    if judge is None:
        raise R2VError("this task's answer has to be judged by a model; name one in benchmark.options.judge")
    if references.fuzzy_match == "N/A":
        return judge.same_reason(intent, evaluation.string_note, answer)
    return all(judge.same(intent, reference, answer) for reference in references.fuzzy_match)


def arrived(references: str, address: str) -> bool:
    """``url_match``: one address is part of the page's, and each query key of all of them has one of their values."""
    here, query = _parts(address)
    wanted = [_parts(reference) for reference in references.split(OR)]
    keys: dict[str, set[str]] = {}
    for _, asked in wanted:
        for key, values in asked.items():
            keys.setdefault(key, set()).update(values)
    return any(base in here for base, _ in wanted) and all(
        values & set(query.get(key, ())) for key, values in keys.items()
    )


def found(target: Target, browser: Browser) -> bool:
    """``program_html``: one look at a page."""
    url = target.url
    if url.startswith("func:"):
        url = browser.helper(url.removeprefix("func:").replace("__last_url__", browser.address()))
    if url == "last":
        return _holds(target.required_contents, _look(target, browser))
    with browser.aside(url) as opened:
        return opened and _holds(target.required_contents, _look(target, browser))


def _look(target: Target, browser: Browser) -> str:
    locator = target.locator.strip()
    if not locator:
        return html.unescape(browser.source())
    if locator.startswith("func:"):
        return html.unescape(browser.helper(locator.removeprefix("func:")))
    if not locator.startswith(("document.", "[...document.")):
        raise R2VError(f"the task's locator '{locator[:80]}' is neither document.… nor func:…; correct the task file")
    for script in target.prep_actions:
        browser.value(script)
    return html.unescape(browser.value(locator))


def _holds(contents: Contents, text: str) -> bool:
    if contents.exact_match is not None:
        return equal(contents.exact_match, text)
    return all(any(includes(phrase, text) for phrase in phrases.split(OR)) for phrases in contents.must_include or ())


def plain(text: str) -> str:
    """A text in small letters, without space or one pair of quotes around it."""
    text = text.strip()
    for quote in "'\"":
        if text.startswith(quote) and text.endswith(quote):
            return text[1:-1].lower()
    return text.lower()


def equal(reference: str, text: str) -> bool:
    """``exact_match``."""
    return plain(reference) == plain(text)


def includes(phrase: str, text: str, whole_word: bool = False) -> bool:
    """``must_include``. A phrase of a single character may have to be a word of the text: 5 is not in 15."""
    phrase, text = plain(phrase), plain(text)
    return phrase in words(text) if whole_word and len(phrase) == 1 else phrase in text


def words(text: str) -> Sequence[str]:
    """A text's words and signs; what joins letters and digits stays where it is (``1.5``, ``10:30``, ``e-mail``)."""
    return _APART.sub(lambda match: f" {match[0]} ", text).split()


def _parts(url: str) -> tuple[str, dict[str, list[str]]]:
    """Host and path of an address, and its query."""
    parts = urlsplit(url.rstrip("/"))
    return parts.netloc + parts.path, parse_qs(parts.query)
