"""The list of documented commands that are not run is neither too long nor out of date."""

from __future__ import annotations

import re

import pytest

from tests.docs.documented import COMMANDS, NOT_ASKED, NOT_RUN, PAGES, QUERIES, ROOT, RUN, _commands


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_each_reason_is_still_needed(pattern: str) -> None:
    assert any(re.match(pattern, command) for _, command in COMMANDS)


@pytest.mark.parametrize("pattern", NOT_ASKED)
def test_each_query_that_is_not_asked_is_still_there(pattern: str) -> None:
    assert any(re.match(pattern, query) for _, query in QUERIES)


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_the_tests_that_reasons_name_exist(pattern: str) -> None:
    for name in re.findall(r"tests/[\w/]+\.py", NOT_RUN[pattern]):
        assert (ROOT / name).is_file(), name


def test_commands_are_found_whole() -> None:
    text = "a --b 'c\nd' \\\n  e   # why\n# only a comment\n\nf  # g"
    assert _commands(text) == ["a --b 'c\nd' \\\n  e", "f"]
    assert len(PAGES) > 10 and len(COMMANDS) > 50 and len(RUN) > 20


def test_every_code_block_says_its_language() -> None:
    for page in PAGES:
        opened = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith("```"):
                opened = not opened
                assert not opened or line.strip() != "```", f"{page}: a block without a language would not be looked at"
