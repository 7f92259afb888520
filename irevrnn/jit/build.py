"""Build the C++ operators on first use and register them with PyTorch.

Nothing happens at import. The first call of :func:`load` takes the library that came with the
package, if one fits (:mod:`irevrnn.jit.prebuilt`). Else it looks in a cache, in a folder named
after all that goes into the library (PyTorch, compiler, processor, flags, sources), and builds it
there if it is missing. ``python -m irevrnn.jit`` builds ahead of time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TypeVar

import torch

from irevrnn.jit import prebuilt
from irevrnn.jit.cache import cached, digest
from irevrnn.jit.commands import BuildError, jobs, run, say
from irevrnn.jit.compiler import Compiler, find_compiler
from irevrnn.jit.loading import load_library

SOURCES = Path(__file__).parents[1] / "csrc"
_TORCH = Path(torch.__file__).parent
#: What tells this build of PyTorch from another, whose headers may differ.
TORCH = f"{torch.__version__} {torch.version.git_version}"
#: Options that find PyTorch's headers and libraries. No path of these goes into ours: PyTorch has
#: loaded its own by then.
TORCH_INCLUDES = [f"-isystem{_TORCH}/include", f"-isystem{_TORCH}/include/torch/csrc/api/include"]
TORCH_LIBRARIES = [f"-L{_TORCH}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]
Result = TypeVar("Result")


def once_per_process(function: Callable[[], Result]) -> Callable[[], Result]:
    """Run a function at its first call alone, whichever thread that comes from."""
    results: list[Result] = []
    locks: dict[int, threading.RLock] = {}

    @wraps(function)
    def call() -> Result:
        if not results:
            # By process: a forked child would wait for a thread that only its parent has.
            with locks.setdefault(os.getpid(), threading.RLock()):
                if not results:
                    results.append(function())
        return results[0]

    return call


def build_operators() -> Path:
    """Load the C++ operators; return their library: the package's, the cache's, or a new one."""
    sources = sorted(SOURCES.glob("*.cpp"))
    library, reason = prebuilt.find(digest(*files_of(sources, SOURCES)))
    if library:
        return library
    try:
        return build_extension("irevrnn_ops", sources, reason=reason)
    except BuildError as error:
        raise BuildError(f"{reason}; {error}" if reason else str(error)) from error


def prebuild(folder: Path) -> list[Path]:
    """Build the operators for a package: a library for each kind of processor that may load it.

    Those in the folder for other releases of PyTorch stay there, unless they are of other sources.
    Returns the libraries' paths.
    """
    if os.environ.get("IREVRNN_CXXFLAGS"):
        raise BuildError(
            "a package's libraries are for all processors of a kind: unset IREVRNN_CXXFLAGS"
        )
    sources = sorted(SOURCES.glob("*.cpp"))
    made_from = digest(*files_of(sources, SOURCES))
    prebuilt.remove_outdated(folder, made_from)
    libraries = []
    for instructions, flags in prebuilt.instruction_sets().items():
        library = build_extension("irevrnn_ops", sources, flags, reason=f"for {instructions}")
        libraries.append(prebuilt.add(library, folder, instructions, made_from))
    return libraries


@once_per_process
def load(build: Callable[[], Path] = build_operators) -> bool:
    """Register the operators, building them if need be; warn and return False if that fails."""
    try:
        build()
    except (BuildError, OSError) as error:
        warn(
            f"irevrnn runs its slow PyTorch reference, because the C++ kernels could not be built: "
            f"{error}\nCompared with nn.LSTM, training takes about 2.4 times as long with "
            "memory='recompute' (the default), and 0.8 times as long with memory='store'."
        )
        return False
    return True


def build_extension(
    name: str, sources: Sequence[Path], processor: tuple[str, ...] = (), reason: str = ""
) -> Path:
    """Load a library of C++ files, built with the kernels' compiler and flags if need be.

    Headers are looked for in :data:`SOURCES`, too. The library is for this machine's processor; one
    for that of the flags in ``processor`` is not loaded. The line that says that it is being built
    ends with the ``reason``. Returns the library's path.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    compiler = find_compiler(processor=processor)
    files = files_of(sources, SOURCES, *(source.parent for source in sources))
    key = digest(TORCH, compiler.identity, *compiler.flags, *compiler.link_flags, *files)
    words = [*compiler.command, *compiler.flags, f"-I{SOURCES}", *TORCH_INCLUDES]
    return cached_library(
        key,
        f"{name}.so",
        compiler,
        dict.fromkeys(sources, words),
        TORCH_LIBRARIES,
        contents="the C++ kernels" if name == "irevrnn_ops" else name,
        failure=f"{compiler} failed; CXX names another compiler, MAX_JOBS=1 takes less memory",
        reason=reason,
        load=not processor,
    )


def cached_library(
    key: str,
    name: str,
    linker: Compiler,
    compilations: Mapping[Path, Sequence[str]],
    libraries: Sequence[str],
    *,
    contents: str,
    failure: str,
    reason: str = "",
    load: bool = True,
) -> Path:
    """Load a library from the cache, or else compile and link it; return its path.

    One command for each source needs no ninja. ``torch.utils.cpp_extension.load`` was tried: it
    takes no folder with a ``$`` or ``:`` in its name and no compiler of two words (``ccache g++``),
    shows nothing until the end, waits without end for the lock of a killed process, and what it
    started goes on when Python is killed.

    ``compilations`` has the words that compile each source. In messages, the library is called
    ``contents``; that of a compiler that fails begins with ``failure``. A library for another
    processor cannot be loaded.
    """
    if not compilations:
        raise BuildError(f"the sources of {contents} are missing: install the package as a folder")

    def make(folder: Path) -> Path:
        started = time.monotonic()
        say(f"building {contents}, once, with MAX_JOBS={jobs()}{reason and f': {reason}'} ...")
        commands = {
            f"{file.parent.name}/{file.name}": [*words, "-c", str(file.absolute()), "-o", f"{i}.o"]
            for i, (file, words) in enumerate(compilations.items())
        }
        dict(run(commands, folder, failure))
        objects = [words[-1] for words in commands.values()]
        link = [*linker.command, "-shared", *objects, "-o", name, *linker.link_flags, *libraries]
        dict(run({name: link}, folder, failure))
        try:  # before it gets into the cache, where a broken one would stay
            if load:
                load_library(folder / name)
        except OSError as error:
            raise BuildError(
                f"{name} does not load ({error}). {linker} linked it: name another compiler in "
                "CXX, or another folder in IREVRNN_CACHE"
            ) from error
        say(f"built {contents} in {time.monotonic() - started:.0f} s")
        return folder / name

    return cached(key, name, make, load_library if load else None)


def files_of(sources: Sequence[Path], *folders: Path) -> list[Path]:
    """Return sources, and the headers in some folders."""
    found = {path for folder in folders for path in (*folder.glob("*.h"), *folder.glob("*.cuh"))}
    return [*sources, *sorted(found)]


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Issue a warning that points at the nearest caller outside irevrnn and PyTorch."""
    inside = ("irevrnn", "torch", "contextlib", "functools")
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(message, category, file, line, registry=registry)
