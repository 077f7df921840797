"""Teachers by provider, imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.teachers.base import Teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.teachers.names import Provider, find_teacher
from r2v_core.teachers.options import check_options

MAKERS: dict[Provider, str] = {
    "env": "r2v_core.teachers.expert:make",
    "local": "r2v_core.teachers.local:make",
    "trained": "r2v_core.teachers.trained:make",
    "openai": "r2v_core.teachers.api:make",
    "anthropic": "r2v_core.teachers.api:make",
    "google": "r2v_core.teachers.api:make",
    "deepseek": "r2v_core.teachers.api:make",
    "openai_compatible": "r2v_core.teachers.api:make",
}
"""Provider → 'module:function'; the function takes ``(name, entry, options, limits, context)``."""


def teacher_identity(name: str, project: Path) -> tuple[str, str]:
    """(provider, model) of a partition's teacher name.

    Raises:
        R2VError: for an unknown name, with the nearest known one.
    """
    entry = find_teacher(name, project)
    return entry.provider, entry.model


def check_teacher(name: str, options: dict[str, Any], project: Path, role: str = "teacher") -> None:
    """Refuse an unknown teacher and options that its provider does not have, without importing anything of it.

    Args:
        role: the config section that says so, for messages.

    Raises:
        R2VError: naming what is wrong.
    """
    check_options(find_teacher(name, project).provider, options, f"{role}.options")


def make_teacher(name: str, options: dict[str, Any], limits: TeacherLimitsConfig, context: TeacherContext) -> Teacher:
    """Build a partition's teacher.

    Raises:
        R2VError: for an unknown name, wrong options, or whatever the provider needs and does not find (key, package).
    """
    entry = find_teacher(name, context.project)
    module, _, function = MAKERS[entry.provider].partition(":")
    teacher: Teacher = getattr(import_module(module), function)(
        name, entry, check_options(entry.provider, options, f"{context.role}.options"), limits, context
    )
    return teacher
