"""Teachers by provider, imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from r2v_core.errors import R2VError, nearest
from r2v_core.teachers.base import Teacher

PROVIDERS: dict[str, str] = {
    "env": "r2v_core.teachers.expert:Expert",
}
"""Provider → 'module:class'; the class takes ``(model, options)``."""

TEACHERS: dict[str, tuple[str, str]] = {
    "expert": ("env", "expert"),
}
"""Partition name of a teacher → (provider, model)."""


def teacher_identity(name: str) -> tuple[str, str]:
    """(provider, model) of a partition's teacher name.

    Raises:
        R2VError: for an unknown name, with the known ones.
    """
    if name not in TEACHERS:
        raise R2VError(f"Unknown teacher '{name}'.{nearest(name, TEACHERS)}")
    return TEACHERS[name]


def make_teacher(name: str, options: dict[str, Any]) -> Teacher:
    """Build a partition's teacher."""
    provider, model = teacher_identity(name)
    module, _, attribute = PROVIDERS[provider].partition(":")
    teacher: Teacher = getattr(import_module(module), attribute)(model, options)
    return teacher
