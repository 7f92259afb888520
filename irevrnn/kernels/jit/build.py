"""Build C++ libraries on first use, and cache them in folders named after all that goes in."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock

from irevrnn.kernels.jit.compiler import BuildError, find_compiler, run, say

SOURCES = Path(__file__).parents[1] / "csrc"
#: Seconds that a process waits for another's build.
PATIENCE = 1800
_TORCH = Path(torch.__file__).parent
#: Distinguishes this build of PyTorch from others, whose headers may differ.
TORCH = f"{torch.__version__} {torch.version.git_version}"
#: Options that find PyTorch's headers and libraries. No path of these goes into ours.
TORCH_INCLUDES = [f"-I{_TORCH}/include", f"-I{_TORCH}/include/torch/csrc/api/include"]
TORCH_LIBRARIES = [f"-L{_TORCH}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]
Result = TypeVar("Result")


def build_operators() -> Path:
    """Load the C++ operators, which registers them with PyTorch; return their library."""
    return build_extension("irevrnn_ops", sorted(SOURCES.glob("*.cpp")))


def build_extension(name: str, sources: Sequence[Path]) -> Path:
    """Load a library of C++ files, built with the kernels' compiler if need be; return its path."""
    compiler = find_compiler()
    files = files_of(sources, SOURCES, *(source.parent for source in sources))
    words = [compiler.command, *compiler.flags, f"-I{SOURCES}", *TORCH_INCLUDES]
    link = [compiler.command, *compiler.link_flags, *TORCH_LIBRARIES]
    place = f"{digest(TORCH, compiler.identity, *compiler.flags, *files)}/{name}.so"
    return cached_library(place, lambda path: compile_library(path, sources, words, link))


def compile_library(
    library: Path, sources: Sequence[Path], words: Sequence[str], link: Sequence[str]
) -> None:
    """Compile sources by a command, and link them into a library by another.

    Unlike ``torch.utils.cpp_extension.load``, it needs no ninja, and does not wait for ever for the
    lock of a killed process.
    """
    with tempfile.TemporaryDirectory(prefix="irevrnn-") as work:
        commands = {
            f"{file.parent.name}/{file.name}": [*words, "-c", str(file.absolute()), "-o", f"{i}.o"]
            for i, file in enumerate(sources)
        }
        run(commands, work)
        objects = [command[-1] for command in commands.values()]
        run({"linking": [link[0], "-shared", *objects, "-o", str(library), *link[1:]]}, work)


def cached_library(place: str, make: Callable[[Path], None], note: str = "") -> Path:
    """Load the library at a place in the cache; make it if it is missing or does not load.

    Of processes that need it at the same time, one makes it and the others wait.
    """
    library = cache_folder() / place
    if loads(library):
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(library.with_name("lock"), timeout=PATIENCE):  # it ends with its holder
            if not loads(library):  # else it was built while this process waited
                say(f"building {library.name}, once{note} ...")
                new = library.with_name("new")
                make(new)
                ctypes.CDLL(str(new))  # a broken one would stay
                os.replace(new, library)
    except (OSError, RuntimeError, ValueError) as error:
        raise BuildError(
            f"no {library}: {error}\nCXX, CUDA_HOME and CUDAHOSTCXX name other compilers, IREVRNN_"
            "CACHE another folder, IREVRNN_CUDA_ARCHS other GPUs; MAX_JOBS=1 takes less memory"
        ) from error
    return library


def loads(library: Path) -> bool:
    """Load a library; return False if it is missing, or from another system."""
    with suppress(OSError):
        return bool(ctypes.CDLL(str(library)))
    return False


def cache_folder() -> Path:
    """Return the folder that IREVRNN_CACHE names, or the one where the system keeps caches."""
    usual = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "irevrnn")
    return Path(os.path.expanduser(os.environ.get("IREVRNN_CACHE") or usual)).absolute()


def digest(*parts: str | Path) -> str:
    """Return a digest of texts, and of files' names and contents."""
    texts = (f"{x.name}\0{x.read_text('utf-8')}" if isinstance(x, Path) else x for x in parts)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def files_of(sources: Sequence[Path], *folders: Path) -> list[Path]:
    """Return sources, and the headers in some folders."""
    found = {path for folder in folders for path in (*folder.glob("*.h"), *folder.glob("*.cuh"))}
    return [*sources, *sorted(found)]


def once_per_process(function: Callable[[], Result]) -> Callable[[], Result]:
    """Run a function at its first call alone, whichever thread that comes from."""
    results, lock = list[Result](), threading.Lock()

    @wraps(function)
    def call() -> Result:
        if not results:  # later calls take no lock: a fork would inherit it
            with lock:
                if not results:
                    results.append(function())
        return results[0]

    return call


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Issue a warning that points at the nearest caller outside irevrnn and PyTorch."""
    inside = ("irevrnn", "torch", "contextlib", "functools")
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
