"""The report in a real browser: no text of a model or an environment can run there, or fetch anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.common.exceptions import JavascriptException, NoAlertPresentException

from r2v_core.results.report import page_script
from r2v_core.trajectory import Candidate, Episode, Observation, Perturbation
from tests.results.chromium import Page, chromium
from tests.results.reports import address, write_report

Make = Callable[..., list[Episode]]


HOSTILE = (
    "<script>window.pwned = 1; alert(1)</script>",
    "</script><script>window.pwned = 1</script>",
    "<!-- <script> --><img src=x onerror='window.pwned = 1'>",
    "\"><svg onload=window.pwned=1><iframe src='javascript:parent.pwned=1'></iframe>",
    "]]></style><style>* { display: none }</style><link rel=stylesheet href='https://example.invalid/x.css'>",
    "javascript:window.pwned=1 {{ 7 * 7 }} ${window.pwned=1} &lt;b&gt; \u2028\u202e\u0000 end",
)


@pytest.fixture(scope="module")
def hostile(make_episodes: Make) -> list[Episode]:
    """Episodes in which every text that comes from outside is an attack; each has its own place in the list."""
    found = []
    for n, episode in enumerate(
        make_episodes(conditions=("noisy",), tasks=len(HOSTILE), zs=1, methods=("r2v", "slm_only"))
    ):
        evil = HOSTILE[n % len(HOSTILE)]
        steps = [
            step.model_copy(
                update={
                    "observation": Observation(state=f"seen {evil}", feedback=evil),
                    "clean": Observation(state=f"clean {evil}", feedback=evil),
                    "action": evil,
                    "expert_action": f"{evil}!",
                    "perturbations": [Perturbation(family=evil, operator=evil, detail={evil: evil, "n": [evil]})],
                    "decision": step.decision.model_copy(  # type: ignore[union-attr]
                        update={
                            "candidates": [Candidate(text=evil, logprob=-1.0, n_tokens=1, entropy=0.1, progress=False)],
                            "features": {evil: 1.0, "__proto__": 2.0},
                            "blocked": evil,
                        }
                    ),
                }
            )
            for step in episode.steps
        ]
        update = {"task_id": evil, "template_id": evil, "goal": evil, "episode_id": f"{evil}{n}", "steps": steps}
        found.append(episode.model_copy(update=update | {"metadata": {**episode.metadata, "family": evil}}))
    return found


def test_hostile_text_is_only_text(hostile: list[Episode], tmp_path: Path) -> None:
    path = write_report(hostile, tmp_path)
    with chromium(tmp_path / "profile") as driver:
        page = Page(driver, path)
        for where in ("", f"#episodes?task_id={quote(HOSTILE[0])}", f"#{quote(HOSTILE[2])}"):
            page.open(where)
        for episode in hostile[: len(HOSTILE)]:
            page.open(address(episode, beside="slm_only"))
            assert page.text("#task") == episode.task_id == page.text("#goal")
            evil = episode.task_id
            for selector in ("#first .action", "#first .candidates th[scope=row]", "#first .feedback"):
                assert evil in page.text(selector), selector
            assert page.text("#first .state") == f"cleanseen {evil}"
            assert page.text("#first .noise").count(evil) >= 4
            page.choose("#filter-task_id", evil)
            page.settle()
            assert page.text("#count").startswith("2 of ") and evil in page.text("#list .item")
        assert page.run("return window.pwned") is None
        with pytest.raises(NoAlertPresentException):
            _ = page.driver.switch_to.alert.text
        kinds = page.run("return [...new Set([...document.body.querySelectorAll('*')].map((node) => node.localName))]")
        assert not {"iframe", "link", "style", "object", "embed", "form", "base"} & set(kinds)
        assert page.run("return [...document.scripts].filter((node) => node.type === 'module').length") == 1
        assert page.run("return [...document.images].every((image) => image.src.startsWith('data:'))")
        assert page.console() == []
        assert {url.partition(":")[0] for url in page.requests()} <= {"file", "data", "about"}


def test_the_policy_refuses_markup_and_other_scripts(opened: Page) -> None:
    """The second wall: even a mistake in our own script could not run a text."""
    opened.open()
    for attempt in (
        "document.body.innerHTML = '<img src=x onerror=window.pwned=1>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "const s = document.createElement('script'); s.text = 'window.pwned = 1'; document.body.append(s)",
    ):
        with pytest.raises(JavascriptException, match=r"TrustedHTML|TrustedScript"):
            opened.run(attempt)
    opened.run(
        "const i = document.createElement('img'); i.src = 'https://example.invalid/x.png'; document.body.append(i)"
    )
    opened.run("fetch('https://example.invalid/x').catch(() => { window.refused = true })")
    opened.wait("window.refused === true")
    assert opened.run("return window.pwned") is None
    refused = opened.console()
    assert sum("Content Security Policy" in message for message in refused) >= 3
    opened.requests()


def test_the_script_holds_nothing_that_ends_a_script_element() -> None:
    assert not re.search(r"</script|<!--|\]\]>", page_script(), re.IGNORECASE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", page_script())
