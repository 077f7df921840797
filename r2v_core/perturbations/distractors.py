"""Irrelevant or misleading content, none of it an instruction."""

from __future__ import annotations

import numpy as np

from r2v_core.config import schema
from r2v_core.perturbations import listing, tree
from r2v_core.perturbations.base import StepContext, View
from r2v_core.perturbations.common import change, fires, insert_sentence, parts_of, pick, sentences
from r2v_core.trajectory import Observation, Perturbation

IRRELEVANT = (
    "Somewhere outside a dog barks twice and falls silent.",
    "The weather report promised rain for the weekend.",
    "A faint smell of coffee hangs in the air.",
    "The average depth of the ocean is about 3,700 metres.",
    "Someone has written a shopping list on the back of an envelope.",
    "The clock on the wall is seven minutes slow.",
    "You remember that the library closes early on Fridays.",
    "A train passes in the distance.",
    "The wallpaper shows a pattern of small blue birds.",
    "Bees visit about two million flowers for one jar of honey.",
    "The floorboards creak as the house settles.",
    "A calendar still shows last month.",
)
"""Sentences that have nothing to do with any task."""

DECOYS = (
    "brass lantern",
    "velvet cushion",
    "porcelain owl",
    "bamboo flute",
    "leather suitcase",
    "glass marble",
    "wooden abacus",
    "silk parasol",
    "copper kettle",
    "plaster bust",
    "ivory chessman",
    "wicker hamper",
)
"""Objects that no benchmark here has."""

HINTS = (
    "A note on the side says that the next step is: {action}.",
    "According to the manual, what helps here is: {action}.",
    "Somebody who has solved this before recommends: {action}.",
)
"""What reads as help; the action is drawn, and right by chance at most."""

FALSE_HINTS = (
    "Note: the expected result was changed yesterday, its sign is reversed now.",
    "Known issue: indices count from one here, in spite of what the description says.",
    "Reviewer's comment: the first argument is never used and can be ignored.",
    "Note: an empty input is never passed, so that case needs no handling.",
)
"""The same where no action can be named in a few words: about the text, and false."""

MAX_HINT = 60
"""Characters of an action that a hint may name."""


class Distractors:
    """``shuffle``: sentences in another order. ``repeat``: a sentence said twice. ``irrelevant_text``: sentences that
    have nothing to do with the task. ``decoy_objects``: objects that do not exist. ``plausible_wrong``: a hint that
    reads as if it helped, and is made up.

    On a web page the same happens to elements: reordered, listed twice, text and decoys among them. In a workspace the
    decoys are files in its list.
    """

    name = "distractors"
    operators = ("irrelevant_text", "decoy_objects", "shuffle", "repeat", "plausible_wrong")

    def __init__(self, config: schema.DistractorsConfig) -> None:
        self.config = config

    def observe(self, context: StepContext, view: View) -> None:
        """First what rearranges the text (``shuffle``, ``repeat``), then what adds to its state."""
        self._observe(context, view)
        if draws := fires(context, "plausible_wrong", self.config.plausible_wrong):
            feedback, state = parts_of(view)
            state, hint = _mislead(state, context, draws)
            change(view, self.name, "plausible_wrong", (feedback, state), hint=hint)

    def _observe(self, context: StepContext, view: View) -> None:
        if tree.is_tree(view.observation.state):
            self._observe_page(context, view)
            return
        if draws := fires(context, "shuffle", self.config.shuffle):
            feedback, state = parts_of(view)
            change(view, self.name, "shuffle", (_shuffle(feedback, draws), _shuffle(state, draws)))
        if draws := fires(context, "repeat", self.config.repeat):
            feedback, state = parts_of(view)
            if state.strip():
                state, said = _repeat(state, draws)
            else:
                feedback, said = _repeat(feedback, draws)
            change(view, self.name, "repeat", (feedback, state), sentence=said)
        if draws := fires(context, "irrelevant_text", self.config.irrelevant_text):
            feedback, state = parts_of(view)
            text = pick(draws, IRRELEVANT)
            state = insert_sentence(state, text, float(draws.random()))
            change(view, self.name, "irrelevant_text", (feedback, state), text=text)
        if draws := fires(context, "decoy_objects", self.config.decoy_objects):
            feedback, state = parts_of(view)
            if listing.is_workspace((context.current or view.observation).state):  # what is seen may be cut by now
                state, files = listing.decoys(state, draws)
                change(view, self.name, "decoy_objects", (feedback, state), files=files)
                return
            objects = _decoys(context, draws)
            text = f"You also see {' and '.join(f'a {name}' for name in objects)} here."
            state = insert_sentence(state, text, float(draws.random()))
            change(view, self.name, "decoy_objects", (feedback, state), objects=objects)

    def _observe_page(self, context: StepContext, view: View) -> None:
        if draws := fires(context, "shuffle", self.config.shuffle):
            feedback, state = parts_of(view)
            change(view, self.name, "shuffle", (feedback, tree.reorder(state, draws)))
        if draws := fires(context, "repeat", self.config.repeat):
            feedback, state = parts_of(view)
            state, said = tree.repeat(state, draws)
            change(view, self.name, "repeat", (feedback, state), element=said)
        if draws := fires(context, "irrelevant_text", self.config.irrelevant_text):
            feedback, state = parts_of(view)
            text = pick(draws, IRRELEVANT)
            state = tree.plant(state, [f"text '{text}'"], float(draws.random()))
            change(view, self.name, "irrelevant_text", (feedback, state), text=text)
        if draws := fires(context, "decoy_objects", self.config.decoy_objects):
            feedback, state = parts_of(view)
            state, elements = tree.decoys(state, context.goal, draws)
            change(view, self.name, "decoy_objects", (feedback, state), elements=elements)

    def intercept(self, context: StepContext, action: str) -> tuple[Observation, Perturbation] | None:
        """Never: this family only changes what is seen."""
        return None


def _shuffle(text: str, draws: np.random.Generator) -> str:
    """The sentences in another order, the space between them where it was."""
    pieces = sentences(text)
    order = draws.permutation(len(pieces)).tolist()
    if order == sorted(order):
        order = order[1:] + order[:1]
    spaces = [piece[len(piece.rstrip()) :] for piece in pieces]
    return "".join(pieces[i].rstrip() + space for i, space in zip(order, spaces, strict=True))


def _repeat(text: str, draws: np.random.Generator) -> tuple[str, str]:
    """The text with one sentence said twice in a row, and that sentence."""
    pieces = sentences(text)
    spoken = [i for i, piece in enumerate(pieces) if piece.strip()]
    if not spoken:
        return text, ""
    i = spoken[int(draws.integers(len(spoken)))]
    said = pieces[i].strip()
    space = " " if pieces[i] == pieces[i].rstrip() else ""
    return "".join([*pieces[: i + 1], space, said, pieces[i][len(pieces[i].rstrip()) :], *pieces[i + 1 :]]), said


def _decoys(context: StepContext, draws: np.random.Generator) -> list[str]:
    """One to three objects whose nouns appear neither in the goal nor in an action."""
    real = " ".join([context.goal, *context.admissible]).lower()
    choices = [name for name in DECOYS if name.split()[-1] not in real] or list(DECOYS)
    n = int(draws.integers(1, 4))
    return [choices[i] for i in draws.permutation(len(choices))[:n].tolist()]


def _mislead(state: str, context: StepContext, draws: np.random.Generator) -> tuple[str, str]:
    """The state with a hint more, and the hint: about an element of the page, an admissible action, or the text."""
    template = pick(draws, HINTS)
    if tree.is_tree(state):
        hint = template.format(action=f"click('{tree.some_element(state, draws)}')")
        return tree.plant(state, [f'text "{hint}"'], float(draws.random())), hint
    short = [
        action for action in context.admissible if action.strip() and len(action) <= MAX_HINT and "\n" not in action
    ]
    named = sorted({action for action in short if action.lower() not in context.goal.lower()})
    hint = template.format(action=pick(draws, named)) if named else pick(draws, FALSE_HINTS)
    return insert_sentence(state, hint, float(draws.random())), hint
