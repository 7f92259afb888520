"""Find the C++ compiler and what it can do here; run compilers side by side."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

# C++20 is what PyTorch's headers ask for. Contraction is off because a coupling must round alike
# wherever it is computed, or it cannot be undone.
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno")


class BuildError(RuntimeError):
    """A library cannot be built; the message says why and what helps."""


def say(message: str) -> None:
    """Print a line of progress on stderr, apart from the program's output."""
    print(f"irevrnn: {message}", file=sys.stderr, flush=True)


def run(commands: Mapping[str, Sequence[str]], folder: str) -> dict[str, str]:
    """Run named commands in a folder, as many at a time as MAX_JOBS says; return their outputs.

    When one fails, with a BuildError, no other begins.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    # A library that is preloaded into Python, such as a sanitizer, is not theirs.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    execute = partial(
        subprocess.run, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    outputs = {}
    pool = ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or cores or 1))
    try:
        for name, done in zip(commands, pool.map(execute, commands.values()), strict=True):
            if done.returncode != 0:
                raise BuildError(f"{commands[name][0]} fails on {name}:\n{done.stdout[-3000:]}")
            outputs[name] = done.stdout
            say(f"[{len(outputs)}/{len(commands)}] {name}")
    finally:  # after an error, or an interrupt, what waits need not start
        pool.shutdown(cancel_futures=True)
    return outputs


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, the flags it takes and all that tells its output from another's."""

    command: str
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    identity: str


def find_compiler(variables: tuple[str, ...] = ("CXX",), *, native: bool = True) -> Compiler:
    """Return the compiler that the first of the variables that is set names, or the first found.

    Flags in IREVRNN_CXXFLAGS are added to its own, for compiling and linking: for sanitizers, say.
    If ``native``, the code may use OpenMP, and all that this machine's processor can do, unless
    IREVRNN_CXXFLAGS names another one. A BuildError says what is missing.
    """
    if sys.platform == "win32":
        raise BuildError("the kernels are not built on Windows. Use WSL, the Linux inside Windows")
    named = next(filter(None, map(os.environ.get, variables)), None)
    names = [named] if named else ["g++", "c++", "clang++"]
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise BuildError(
            f"there is no C++ compiler {' or '.join(names)}. 'apt install g++' or 'conda install "
            f"gxx' brings one ('xcode-select --install' on a Mac); {variables[0]} names another"
        )
    command = os.path.abspath(found)  # the build runs in another folder
    own = tuple(os.environ.get("IREVRNN_CXXFLAGS", "").split())
    flags = (*FLAGS, *own)
    macros = _macros(command, flags)
    tuned = any(flag.startswith(("-march=", "-mcpu=")) for flag in own)
    arm = platform.machine() in ("aarch64", "arm64")
    optional = [] if tuned else ["-mcpu=native" if arm else "-march=native"]
    if torch.backends.openmp.is_available():  # at::parallel_for runs on it
        optional.append("-fopenmp")
    for flag in optional if native else []:  # they make the kernels faster, where they are known
        if more := _macros(command, (*flags, flag)):
            flags, macros = (*flags, flag), more
    # g++ names no OpenMP runtime: then the library finds the very one that PyTorch loaded, and
    # torch.set_num_threads holds for both. clang++ calls functions that the latter may lack.
    openmp = ("-fopenmp",) if "-fopenmp" in flags and "__clang__" in macros else ()
    return Compiler(command, flags, (*openmp, *own), ask(command, "--version") + macros)


def _macros(command: str, flags: tuple[str, ...]) -> str:
    """Return the macros predefined under ``flags``; none if the compiler refuses one."""
    source = "#include <omp.h>\n" if "-fopenmp" in flags else ""
    return ask(command, *flags, "-dM", "-E", "-x", "c++", "-", source=source)


def ask(*command: str, source: str = "") -> str:
    """Return what a compiler prints for a query; an empty text if it fails."""
    done = subprocess.run(command, input=source, capture_output=True, text=True, errors="replace")
    return done.stdout if done.returncode == 0 else ""
