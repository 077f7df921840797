"""What the numbers of a run are called where people read them."""

from __future__ import annotations

import re

WORDS = {
    "auc": "AUC",
    "ece": "ECE",
    "brier": "Brier",
    "cvar": "CVaR",
    "usd": "USD",
    "bc": "BC",
    "dpo": "DPO",
    "slm": "SLM",
}
"""Abbreviations as the field writes them."""
_OF_METHOD = re.compile(r"(success|difference)_(.+)")


def label(count: str) -> str:
    """The name of a manifest's count as read by people; a method keeps its own name.

    >>> label("auc"), label("ece_before"), label("label_share_step"), label("success_slm_only")
    ('AUC', 'ECE before', 'label share step', 'success slm_only')
    """
    if found := _OF_METHOD.fullmatch(count):
        return " ".join(found.groups())
    return " ".join(WORDS.get(word, word) for word in count.split("_"))
