"""Which names are those of secrets: in configs, SLURM profiles and old registries alike."""

from __future__ import annotations

import re

_ALWAYS = {"secret", "secrets", "password", "passwords", "passwd", "apikey", "apikeys", "authorization"}
_LAST = {"key", "token", "credential", "credentials"}


def is_secret(name: str) -> bool:
    """``api_key``, ``hfToken``, ``password``; not ``max_prompt_tokens``, ``key_color``."""
    name = re.sub(r"\[\d+\]", "", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    words = re.split(r"[_\-\s]+", name.lower())
    return bool(_ALWAYS & set(words)) or words[-1] in _LAST or words[-2:] == ["api", "keys"]
