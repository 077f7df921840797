"""The report in a real browser: it opens from a file and shows the episodes' own numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from r2v_core.results.summary import TAIL_WARNING
from r2v_core.trajectory import Episode, Step
from tests.results.chromium import Keys, Page
from tests.results.reports import RULES, VARIANT, address, name_of, open_name

Make = Callable[..., list[Episode]]


def test_opens_from_a_file_with_tables_and_figures(page: Page, traces: list[Episode]) -> None:
    page.open()
    rows = page.run(
        "return [...document.querySelectorAll('#results table')].map((table) =>"
        " [...table.tBodies[0].rows].map((row) => [row.cells[0].innerText, row.cells[1].innerText.split('\\n')[0]]))"
    )
    for condition, shown in zip(("noisy", "clean"), rows, strict=True):
        for method, success in shown:
            mine = [e for e in traces if (e.metadata["method"], e.metadata["condition"]) == (method, condition)]
            rate = sum(e.success for e in mine) / len(mine)
            assert success == f"{rate:.1%}", (condition, method)
    marked = page.run(
        "return [...document.querySelectorAll('#results table')].map((table) =>"
        " [...table.tHead.querySelectorAll('th')].map((cell) => cell.textContent).filter((text) => text.includes('†')))"
    )
    assert marked == [["worst seed †", "CVaR failure †", "bottom 10 % †"], []]
    assert page.text("#results").count(f"† {TAIL_WARNING}") == 1
    assert page.run("return [...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    assert page.run("return document.title") == "R2V on textworld: test <i>"
    assert page.run("return document.getElementById('view-episodes').hidden")


def expected_step(episode: Episode, step: Step) -> dict[str, object]:
    decision = step.decision
    assert decision is not None

    def number(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    return {
        "actor": {"slm": "S small model", "teacher": "T teacher"}[step.actor],
        "action": step.action,
        "answer": "Ask the teacher" if decision.escalate else "Let the small model act",
        "probability": None if decision.probability is None else number(decision.probability, 4),
        "threshold": None if decision.threshold is None else number(decision.threshold, 4),
        "candidates": [
            [
                ("► " if i == decision.chosen else "") + one.text,
                *(number(value, 3) for value in (one.score, one.score_step, one.score_outcome)),
                number(one.logprob, 2),
                number(one.entropy, 2),
                {True: "yes", False: "no", None: "?"}[one.progress],
            ]
            for i, one in enumerate(decision.candidates)
        ],
        "outcome": {
            (False, None): "⊘ swallowed by a tool failure: not carried out",
            (True, True): "✓ carried out, and closer to the goal",
            (True, False): "✗ carried out, and no closer to the goal",
            (True, None): "· carried out; whether it helped is not known",
        }[(step.executed, step.progress)],
        "last": step is episode.steps[-1],
    }


SHOWN_STEP = """
const root = document.querySelector('#first .step');
const text = (selector) => root.querySelector(selector)?.textContent ?? null;
return {
  actor: text('.actor'), action: text('.action'), answer: text('.answer'), probability: text('.probability'),
  threshold: text('.threshold'), outcome: text('.outcome'), last: root.textContent.includes('The episode ended here.'),
  candidates: [...root.querySelectorAll('.candidates tbody tr')].map((row) => [...row.cells].map((c) => c.textContent)),
}"""


def close(shown: object, expected: object) -> bool:
    """Equal, or numbers that differ in the last digit shown: the page rounds what is stored to six digits."""
    if isinstance(shown, list) and isinstance(expected, list):
        return len(shown) == len(expected) and all(map(close, shown, expected))
    if isinstance(expected, str) and re.fullmatch(r"-?\d+\.\d+", expected):
        last = 10.0 ** -len(expected.partition(".")[2])
        return abs(float(str(shown)) - float(expected)) < 1.01 * last
    return shown == expected


@pytest.mark.parametrize("method", ["r2v", "slm_only", "llm_only", "entropy_router", "heuristic_router"])
def test_every_step_shows_what_the_trace_says(page: Page, traces: list[Episode], method: str) -> None:
    mine = [e for e in traces if e.metadata["method"] == method and e.metadata["condition"] == "noisy"]
    episode = max(mine, key=lambda e: (not e.success, sum(len(step.perturbations) for step in e.steps)))
    page.open(address(episode))
    assert page.text("#goal") == episode.goal and page.text("#task") == episode.task_id
    facts = page.text("#first .facts")
    calls = sum(step.actor == "teacher" for step in episode.steps)
    assert f"{len(episode.steps)} steps" in facts and f"{calls} by the teacher" in facts
    assert f"cost {episode.cost:g} units" in facts.replace(",", "")
    assert ("did not solve it" in page.text("#first h3")) == (not episode.success)
    assert page.run("return document.querySelectorAll('#first .chip').length") == len(episode.steps)
    for step in episode.steps:
        assert page.text("#first .where").startswith(f"Step {step.index + 1} of {len(episode.steps)}")
        shown = page.run(SHOWN_STEP)
        for key, expected in expected_step(episode, step).items():
            assert close(shown[key], expected), (step.index, key, shown[key], expected)
        page.press(Keys.ARROW_RIGHT)
        page.settle()
    if method == "heuristic_router":
        assert RULES[method] in page.text("#first .step")


TEXTS = """
const keep = (node, tag) => {
  const copy = node.cloneNode(true);
  copy.querySelectorAll(tag).forEach((other) => other.remove());
  return copy.textContent;
};
return [...document.querySelectorAll('#first .text')].map((node) => [keep(node, 'ins'), keep(node, 'del')]);"""


def test_marks_turn_the_clean_text_into_the_seen_one(page: Page, traces: list[Episode]) -> None:
    noisy = [(e, s) for e in traces for s in e.steps if s.clean and e.metadata["method"] == "r2v"]
    kinds = {record.family: (e, s) for e, s in noisy for record in s.perturbations}
    assert set(kinds) == {"tool_flakiness", "partial_observability", "prompt_injection", "distractors"}
    for family, (episode, step) in kinds.items():
        assert step.clean is not None
        page.open(address(episode, step=step.index + 1))
        feedback = [[step.clean.feedback, step.observation.feedback]] if step.clean.feedback else []
        assert page.run(TEXTS) == [*feedback, [step.clean.state, step.observation.state]]
        assert page.run("return document.querySelectorAll('#first :is(ins, del)').length") > 0
        assert f"{family}: " in page.text("#first .noise")
        for shown, text in (("seen", step.observation.state), ("clean", step.clean.state)):
            page.choose("#shown", shown)
            page.settle()
            assert page.text("#first .text.state") == text
            assert page.run("return document.querySelectorAll('#first :is(ins, del)').length") == 0


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("method", "entropy_router", lambda e, _: e.metadata["method"] == "entropy_router"),
        ("condition", "clean", lambda e, _: e.metadata["condition"] == "clean"),
        ("seed", "2", lambda e, _: e.seed == 2),
        ("z", "1001", lambda e, _: e.perturbation_seed == 1001),
        ("family", "cooking", lambda e, _: e.metadata["family"] == "cooking"),
        ("task_id", "s1-task2", lambda e, _: e.task_id == "s1-task2"),
        ("noise", "distractors", lambda e, _: any(p.family == "distractors" for s in e.steps for p in s.perturbations)),
        ("noise", "none", lambda e, _: not any(step.perturbations for step in e.steps)),
        ("success", "no", lambda e, _: not e.success),
        ("escalated", "yes", lambda e, _: any(step.actor == "teacher" for step in e.steps)),
        ("unsafe", "yes", lambda e, _: any(step.action == "open the trapdoor" for step in e.steps if step.executed)),
        ("against", "+slm_only", lambda e, other: e.success and not other("slm_only").success),
        ("against", "-llm_only", lambda e, other: not e.success and other("llm_only").success),
    ],
)
def test_filters_keep_what_they_say(
    page: Page,
    traces: list[Episode],
    name: str,
    value: str,
    passes: Callable[[Episode, Callable[[str], Episode]], bool],
) -> None:
    by_name = {name_of(episode): episode for episode in traces}

    def beside(episode: Episode) -> Callable[[str], Episode]:
        return lambda method: by_name["~".join([method, *name_of(episode).split("~")[1:]])]

    expected = sum(passes(episode, beside(episode)) for episode in traces)
    assert 0 < expected < len(traces)
    page.open("#episodes")
    page.choose(f"#filter-{name}", value)
    page.settle()
    assert page.text("#count") == f"{expected} of {len(traces)} episodes"
    page.click("#list .item")
    page.settle()
    episode = by_name[open_name(page)]
    assert passes(episode, beside(episode))
    page.click("#reset")
    page.settle()
    assert page.text("#count") == f"{len(traces)} of {len(traces)} episodes"


def test_two_filters_and_a_search_together(page: Page, traces: list[Episode]) -> None:
    page.open("#episodes?method=r2v&success=yes&text=S2-TASK1")
    expected = [e for e in traces if e.metadata["method"] == "r2v" and e.success and e.task_id == "s2-task1"]
    assert page.text("#count") == f"{len(expected)} of {len(traces)} episodes"
    assert page.run("return document.getElementById('filter-text').value") == "S2-TASK1"
    page.open("#episodes?method=nonsense&order=nonsense")
    assert page.text("#count").startswith("0 of ")


def test_two_methods_side_by_side(page: Page, traces: list[Episode]) -> None:
    by_name = {name_of(episode): episode for episode in traces}
    pairs = [
        (e, by_name[name_of(e).replace("r2v", "slm_only", 1)]) for n, e in by_name.items() if n.startswith("r2v~n")
    ]
    one, other = max(pairs, key=lambda pair: pair[0].success - pair[1].success)
    page.open(address(one))
    assert page.run("return document.getElementById('second').hidden")
    page.choose("#beside", "slm_only")
    page.settle()
    heads = page.run("return [...document.querySelectorAll('.episode h3')].map((head) => head.textContent)")
    words = {True: "solved it", False: "did not solve it"}
    assert [head.split(" ", 1)[1] for head in heads] == [
        f"r2v {words[one.success]}",
        f"slm_only {words[other.success]}",
    ]
    together = list(zip(one.steps, other.steps, strict=False))
    parting = next((a.index for a, b in together if (a.action, a.executed) != (b.action, b.executed)), len(together))
    assert page.text("#parting") == f"Paths part at step {parting + 1}"
    page.press("p")
    page.settle()
    actions = page.run("return [...document.querySelectorAll('.step .action')].map((node) => node.textContent)")
    assert actions == [episode.steps[min(parting, len(episode.steps) - 1)].action for episode in (one, other)]
    page.choose("#method", "slm_only")  # the compared one, by itself
    page.settle()
    assert page.run("return document.getElementById('second').hidden")


def test_a_step_beyond_the_end_is_the_last(page: Page, traces: list[Episode]) -> None:
    short, long = (choose(traces, key=lambda e: len(e.steps)) for choose in (min, max))
    page.open(address(short, step=len(long.steps)))
    assert page.text("#first .where") == f"Step {len(short.steps)} of {len(short.steps)}"
    page.press(Keys.ARROW_LEFT)
    page.settle()
    assert page.text("#first .where").startswith(f"Step {len(short.steps) - 1} of ")


def test_sweeps_and_ablations_are_there_too(page: Page, traces: list[Episode]) -> None:
    page.open("#areas")
    for table in ("Areas under the frontiers", "Areas over cost at other cost ratios"):
        cells = f"[aria-label='{table}'] tbody tr td:first-child"
        assert page.run(f'return [...document.querySelectorAll("#areas {cells}")].map((c) => c.textContent)') == ["r2v"]
    assert page.text("#ablations tbody td") == VARIANT
    for method, note in (("r2v@0.2", "at a threshold that 0.2 of the validation steps exceed"), (VARIANT, "ablation")):
        episode = next(e for e in traces if e.metadata["method"] == method)
        page.open(address(episode, beside="r2v"))
        assert note in page.text("#first header") and "r2v" in page.text("#second h3")
        assert page.run("return document.querySelectorAll('#first .chip').length") == len(episode.steps)


def test_a_count_of_the_comparisons_leads_to_its_episodes(page: Page) -> None:
    page.open()
    link = "#comparisons tbody tr:first-child td:nth-child(7) a"
    n = int(page.text(link))
    page.click(link)
    page.settle()
    assert page.text("#count").startswith(f"{n} of ")
