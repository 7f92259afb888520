"""Does something once per process, whichever thread asks first and whatever is forked meanwhile."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
_all: weakref.WeakSet[OncePerProcess] = weakref.WeakSet()


class OncePerProcess(Generic[Result]):
    """A function without arguments that is run at its first call alone."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._results: list[Result] = []
        self.lock = threading.Lock()
        _all.add(self)

    def __call__(self) -> Result:
        if not self._results:
            with self.lock:
                if not self._results:
                    self._results.append(self._function())
        return self._results[0]


def _renew_locks() -> None:
    """Free a forked child's locks: the thread that may have saved one is not there."""
    for each in _all:
        each.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_locks)
