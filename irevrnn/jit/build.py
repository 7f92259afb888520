"""Build the C++ operators on first use and register them with PyTorch.

Nothing happens at import. The first call of :func:`load` looks for the library in a cache, in a
folder named after all that goes into it (PyTorch, compiler, processor, flags, sources), and builds
it there if it is missing. ``python -m irevrnn.jit`` builds ahead of time.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TypeVar

import torch

from irevrnn.jit.cache import cached, digest
from irevrnn.jit.commands import BuildError, say
from irevrnn.jit.compiler import find_compiler
from irevrnn.jit.library import make_library, torch_build, torch_options, with_headers

SOURCES = Path(__file__).parents[1] / "csrc"
Result = TypeVar("Result")
_locks: dict[int, threading.RLock] = {}


def once_per_process(function: Callable[[], Result]) -> Callable[[], Result]:
    """Run a function at its first call alone, whichever thread that comes from."""
    results: list[Result] = []

    @wraps(function)
    def call() -> Result:
        if not results:
            # By process: a forked child would wait for a thread that only its parent has.
            with _locks.setdefault(os.getpid(), threading.RLock()):
                if not results:
                    results.append(function())
        return results[0]

    return call


@once_per_process
def load() -> bool:
    """Register the operators, building them first where the cache has none.

    Returns:
        False, after one warning, where they cannot be built.
    """
    return _load(build_operators)


def _load(build: Callable[[], Path]) -> bool:
    try:
        load_library(build)
    except (BuildError, OSError) as error:
        warn(
            f"irevrnn runs its slow PyTorch reference, because the C++ kernels could not be built: "
            f"{error}\nBeside nn.LSTM, training takes about 2.4 times as long with "
            "memory='recompute' (the default), and 0.8 times with memory='store'."
        )
        return False
    return True


def load_library(build: Callable[[], Path]) -> None:
    """Load a library, and build it again if it does not load: it may be another machine's."""
    library = build()
    try:
        torch.ops.load_library(library)
    except OSError as error:
        say(f"building again what does not load ({error})")
        library.unlink(missing_ok=True)
        torch.ops.load_library(build())


def build_operators() -> Path:
    """Return the library of the C++ operators, building it if the cache lacks it."""
    return build_extension("irevrnn_ops", sorted(SOURCES.glob("*.cpp")))


def build_extension(name: str, sources: Sequence[Path]) -> Path:
    """Return a library of C++ files, building it with the kernels' compiler and flags if need be.

    Headers are looked for in :data:`SOURCES`, too. The caller loads the library, with
    ``torch.ops.load_library`` for one.

    Args:
        name: of the library, without its suffix.
        sources: the files to compile.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    compiler = find_compiler()

    def make(folder: Path) -> Path:
        includes, libraries = torch_options("torch", "torch_cpu", "c10")
        words = [*compiler.command, *compiler.flags, f"-I{SOURCES}", *includes]
        return make_library(
            folder / f"{name}.so",
            contents="the C++ kernels" if name == "irevrnn_ops" else name,
            failure=f"{compiler} failed; CXX names another compiler, MAX_JOBS=1 takes less memory",
            compilations=dict.fromkeys(sources, words),
            linking=[*compiler.command, "-shared"],
            options=[*compiler.link_flags, *libraries],
        )

    flags = (compiler.identity, *compiler.flags, *compiler.link_flags)
    key = digest(torch_build(), *flags, *with_headers(sources, SOURCES))
    return cached(key, f"{name}.so", make)


def warn(message: str) -> None:
    """Issue a RuntimeWarning that points at the nearest caller outside irevrnn and PyTorch."""
    inside = ("irevrnn", "torch", "contextlib", "functools")
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(message, RuntimeWarning, file, line, registry=registry)
