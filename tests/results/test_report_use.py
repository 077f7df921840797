"""The report in a real browser: keys, list, address, contrast, colour schemes, narrow windows, many episodes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from r2v_core.trajectory import Candidate, Episode
from tests.results.chromium import Keys, Page, chromium
from tests.results.reports import address, name_of, open_name, write_report

Make = Callable[..., list[Episode]]


def test_keys(page: Page) -> None:
    page.open("#episodes?method=r2v")
    state = "return [document.getElementById('task').textContent + document.getElementById('situation').textContent]"
    start = page.run(state)
    page.press("j")
    page.settle()
    second = page.run(state)
    assert second != start
    page.press("k")
    page.settle()
    assert page.run(state) == start
    for key, where in ((Keys.END, "last"), (Keys.ARROW_LEFT, "before"), (Keys.HOME, "1"), (Keys.ARROW_RIGHT, "2")):
        page.press(key)
        page.settle()
        step, steps = re.findall(r"\d+", page.text("#first .where"))
        assert step == {"last": steps, "before": str(int(steps) - 1)}.get(where, where)
    page.press("c")
    page.settle()
    assert page.text("#second h3").split(" ")[1] == "slm_only"
    page.press("C")
    page.settle()
    assert page.run("return document.getElementById('second').hidden")
    page.press("v")
    page.settle()
    assert page.run("return document.getElementById('shown').value") == "seen"
    page.press("/", "cooking")
    assert page.run("return document.activeElement.id") == "filter-text"
    assert page.run("return document.getElementById('shown').value") == "seen"  # letters typed there are no commands
    page.press(Keys.ESCAPE)
    page.press("e")
    page.wait("document.getElementById('view-episodes').hidden")
    page.press("e")
    page.wait("!document.getElementById('view-episodes').hidden")
    page.settle()
    assert page.run("return document.getElementById('filter-text').value") == "cooking"
    page.press("?")
    page.wait("document.getElementById('help').open")
    assert page.run("return document.querySelectorAll('#key-list dt').length") == 14
    page.press(Keys.ESCAPE)
    page.wait("!document.getElementById('help').open")


def test_the_list_is_a_listbox_for_the_keyboard(page: Page) -> None:
    page.open("#episodes?method=r2v")
    page.run("document.getElementById('list').focus()")
    selected = (
        "const list = document.getElementById('list');"
        "const row = document.getElementById(list.getAttribute('aria-activedescendant'));"
        "return [row.getAttribute('aria-posinset'), row.getAttribute('aria-setsize'), "
        "row.getAttribute('aria-selected')]"
    )
    assert page.run(selected) == ["1", "24", "true"]
    for key, position in ((Keys.ARROW_DOWN, "2"), (Keys.END, "24"), (Keys.ARROW_UP, "23"), (Keys.HOME, "1")):
        page.press(key)
        page.settle()
        assert page.run(selected) == [position, "24", "true"]


def test_a_step_keeps_the_focus_and_what_was_unfolded(page: Page) -> None:
    page.open("#episodes?method=r2v")
    page.click("#first .chip:nth-child(2)")
    page.settle()
    page.run("document.querySelector('#first details').open = true")
    page.press(Keys.ARROW_RIGHT)
    page.settle()
    assert page.run("return document.activeElement.matches('#first .chip:nth-child(3)[aria-current=step]')")
    assert page.run("return document.querySelector('#first details').open")
    assert (
        page.run("return [...document.querySelectorAll('#first .chip')].filter((chip) => chip.tabIndex === 0).length")
        == 1
    )


def test_single_keys_can_be_switched_off(page: Page) -> None:
    page.open("#episodes?method=r2v")
    page.press("?")
    page.wait("document.getElementById('help').open")
    page.click("#keys-on")
    page.press(Keys.ESCAPE)
    page.wait("!document.getElementById('help').open")  # the browser closes it, and moves the focus, in its own time
    before = page.text("#situation") + page.text("#task")
    page.press("j")
    page.settle()
    assert page.text("#situation") + page.text("#task") == before


def test_the_address_leads_back(page: Page, traces: list[Episode]) -> None:
    episode = next(e for e in traces if e.metadata["method"] == "verifier_router" and len(e.steps) > 2)
    page.open(address(episode))
    page.press(Keys.ARROW_RIGHT)
    page.choose("#beside", "llm_only")
    page.settle()
    page.wait("location.hash.includes('beside=llm_only')")
    link = page.run("return location.hash")
    page.open(link)
    assert open_name(page) == name_of(episode)
    assert page.text("#first .where").startswith("Step 2 of ") and "llm_only" in page.text("#second h3")


CONTRAST = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
    if (colour[3] !== 0) throw new Error('a half-transparent background behind text');
  }
  throw new Error('no background');
};
const found = {};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest('script, style, :disabled')) continue;
  const style = getComputedStyle(node);
  const [a, b] = [luminance(parse(style.color)), luminance(behind(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const key = `${style.color} on ${behind(node)}`;
  found[key] = Math.min(found[key] ?? 99, ratio / (large ? 3 : 4.5));
}
return found;"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(page: Page, traces: list[Episode], scheme: str) -> None:
    page.prefer(scheme)
    struck = next(e for e in traces if e.metadata["method"] == "r2v" and any(s.clean for s in e.steps))
    step = next(s.index for s in struck.steps if s.clean) + 1
    seen: dict[str, float] = {}
    for where in ("", address(struck, step=step, beside="slm_only"), "#episodes?unsafe=yes&against=-llm_only"):
        page.open(where)
        seen |= page.run(CONTRAST)
    page.press("?")
    page.wait("document.getElementById('help').open")
    seen |= page.run(CONTRAST)
    assert len(seen) > 12 and all(ratio >= 1 for ratio in seen.values()), {k: v for k, v in seen.items() if v < 1}


def test_light_and_dark(page: Page) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    page.open()
    light = page.run(background)
    page.prefer("dark")
    dark = page.run(background)
    assert dark != light
    page.choose("#theme", "light")
    assert page.run(background) == light
    page.press("t")
    assert page.run("return document.getElementById('theme').value") == "dark" and page.run(background) == dark
    page.prefer("light")
    assert page.run(background) == dark
    page.open()  # remembered
    assert page.run(background) == dark
    page.choose("#theme", "auto")
    assert page.run(background) == light


def test_a_narrow_window_needs_no_sideways_scrolling(page: Page, traces: list[Episode]) -> None:
    size = page.driver.get_window_size()
    page.driver.set_window_size(500, 900)
    try:
        for where in ("", address(traces[0], beside="slm_only")):
            page.open(where)
            assert page.run("return document.documentElement.scrollWidth - innerWidth") <= 0
    finally:
        page.driver.set_window_size(size["width"], size["height"])


def test_a_damaged_file_says_so(opened: Page, tmp_path: Path) -> None:
    whole = opened.path.read_text(encoding="utf-8")
    damaged = tmp_path / "report.html"
    damaged.write_text(re.sub(r'(id="shard-0">.{40})[^<]*', r"\1", whole), encoding="utf-8")
    opened.driver.get(f"{damaged.as_uri()}#episodes")
    opened.wait("document.getElementById('count').textContent.includes('The file may be damaged')")
    opened.console()


def test_five_thousand_episodes(traces: list[Episode], tmp_path: Path) -> None:
    noisy = [e for e in traces if e.perturbation_seed is not None]
    many = [
        e.model_copy(update={"perturbation_seed": 100 * (e.perturbation_seed or 0) + copy})
        for copy in range(5_000 // len(noisy) + 1)
        for e in noisy
    ]
    path = write_report(many, tmp_path)
    with chromium(tmp_path / "profile") as driver:
        page = Page(driver, path)
        page.open("#episodes")
        assert page.text("#count") == f"{len(many):,} of {len(many):,} episodes"
        assert page.run("return document.querySelectorAll('#list .item').length") < 100
        page.choose("#filter-method", "r2v")
        page.choose("#filter-success", "no")
        page.settle()
        expected = sum(e.metadata["method"] == "r2v" and not e.success for e in many)
        assert page.text("#count") == f"{expected:,} of {len(many):,} episodes"
        page.run("document.getElementById('list').scrollTop = 1e9")
        page.wait(
            "document.querySelector('#list .item:last-child').getAttribute('aria-posinset') === arguments[0]",
            str(expected),
        )
        assert page.run("return document.querySelectorAll('#list .item').length") < 100
        assert page.console() == []


def test_programs_keep_their_lines_where_they_are_read_and_take_one_elsewhere(
    make_episodes: Make, tmp_path: Path
) -> None:
    program = "def f(x):\n    if x:\n        return 1\n    return [x]"
    episodes = []
    for episode in make_episodes(conditions=("noisy",), tasks=2, zs=1, methods=("r2v",)):
        candidates = [Candidate(text=program, logprob=-1.0, n_tokens=9, entropy=0.1, progress=True)]
        steps = [
            step.model_copy(
                update={
                    "action": program,
                    "expert_action": f"{program}\n",
                    "decision": step.decision.model_copy(update={"candidates": candidates, "chosen": 0}),  # type: ignore[union-attr]
                }
            )
            for step in episode.steps
        ]
        episodes.append(episode.model_copy(update={"steps": steps}))
    path = write_report(episodes, tmp_path)
    with chromium(tmp_path / "profile") as driver:
        page = Page(driver, path)
        page.open(address(episodes[0], step=2))
        shown = "return document.querySelector(arguments[0]).innerText"
        for selector in ("#first .action", "#first .candidates th[scope=row]"):
            assert program in page.run(shown, selector), selector
        assert "Actions before: def f(x): …" in page.text("#first .earlier")
        labels = page.run("return [...document.querySelectorAll('#first .chip')].map((one) => one.ariaLabel)")
        assert all("def f(x): …" in label and "\n" not in label for label in labels)
