"""Progress of a build, and warnings that point at the line that asked for it."""

from __future__ import annotations

import sys
import warnings

_INSIDE = ("irevrnn", "torch", "contextlib", "functools")


def say(message: str) -> None:
    """Print a line of progress on stderr, apart from the program's output."""
    print(f"irevrnn: {message}", file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Issue a RuntimeWarning that points at the nearest caller outside irevrnn and PyTorch."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(message, RuntimeWarning, file, line, registry=registry)
