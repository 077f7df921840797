"""Room for each part of a prompt that is too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping

MARK = " […]"
"""What stands where the end of a part was cut off."""


def shares(needs: Mapping[str, int], weights: Mapping[str, int], room: int) -> dict[str, int]:
    """Tokens for each part: what it needs, or its share by weight of what the smaller ones leave over."""
    granted: dict[str, int] = {}
    rest = dict(needs)
    while rest:
        total = sum(weights[part] for part in rest)
        small = {part for part, need in rest.items() if need * total <= room * weights[part]}
        if not small:
            return granted | {part: room * weights[part] // total for part in rest}
        for part in small:
            granted[part] = rest.pop(part)
            room -= granted[part]
    return granted


def cut_to(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """The longest beginning of a text that, with :data:`MARK`, has so many tokens; "" where not even one fits."""
    if tokens <= 0:
        return ""
    fits, over = 0, min(len(text), 2 * tokens)
    while over < len(text) and count(text[:over] + MARK) <= tokens:
        fits, over = over, min(len(text), 2 * over)
    if over == len(text) and count(text) <= tokens:
        return text
    while over - fits > 1:
        middle = (fits + over) // 2
        if count(text[:middle] + MARK) <= tokens:
            fits = middle
        else:
            over = middle
    return text[:fits].rstrip() + MARK if fits else ""
