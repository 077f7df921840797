"""Answers that are remembered, each worked out once, also where several threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, Generic, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class _Locks:
    """A lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._all = threading.Lock()
        self._held: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Hold the lock of a key."""
        with self._all:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._all:
                _, users = self._held.pop(key)
                if users > 1:
                    self._held[key] = lock, users - 1


def once(most: int) -> Callable[[F], F]:
    """Remember a function's last ``most`` answers by its (hashable, positional) arguments.

    Unlike with ``functools.lru_cache`` alone, a thread that asks for what another is about to know waits for it.
    """

    def remembering(function: F) -> F:
        known = lru_cache(maxsize=most)(function)
        locks = _Locks()

        @wraps(function)
        def ask(*arguments: Hashable) -> Any:
            with locks.of(arguments):
                return known(*arguments)

        return cast(F, ask)

    return remembering


class once_property(Generic[T]):
    """As ``functools.cached_property``; objects of one class are worked for at the same time, each once."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._locks = _Locks()

    def __get__(self, instance: Any, owner: type) -> T:
        name = self._function.__name__
        with self._locks.of(id(instance)):
            if name not in instance.__dict__:
                instance.__dict__[name] = self._function(instance)
        value: T = instance.__dict__[name]  # from now on found there first
        return value
