"""Finds the C++ compiler and what it can do on this machine."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from dataclasses import dataclass

import torch

# C++20 is what PyTorch's headers ask for. Contraction is off because a coupling must round alike
# wherever it is computed, or it cannot be undone.
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
)


class BuildError(RuntimeError):
    """The operators cannot be built; the message says why and what helps."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, the flags it takes and all that tells its output from another's."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    identity: str


def find_compiler() -> Compiler:
    """Return the compiler named in CXX, or else the first one found.

    Raises:
        BuildError: if there is none, or one too old.
    """
    command = _command()
    macros = _probe(command, _FLAGS)
    if macros is None:
        raise BuildError(
            f"{shlex.join(command)} does not take {' '.join(_FLAGS)}. Name a newer compiler in CXX "
            "(g++ 11 or clang++ 14 will do)"
        )
    flags: tuple[str, ...] = _FLAGS
    for flag in _optional_flags():
        answer = _probe(command, (*flags, flag))
        if answer is not None:
            flags, macros = (*flags, flag), answer
    return Compiler(command, flags, _link_flags(flags, macros), identity=_version(command) + macros)


def _command() -> tuple[str, ...]:
    named = os.environ.get("CXX")
    if named:
        command = tuple(shlex.split(named))
        if shutil.which(command[0]):
            return command
        raise BuildError(f"CXX names {named!r}, which is not there. Correct or unset it")
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return (name,)
    raise BuildError(
        "there is no C++ compiler. 'apt install g++' or 'conda install gxx' brings one "
        "('xcode-select --install' on a Mac)"
    )


def _optional_flags() -> tuple[str, ...]:
    """Flags that make the kernels faster, where the compiler takes them."""
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    # at::parallel_for runs on OpenMP where PyTorch itself does.
    return (native, "-fopenmp") if torch.backends.openmp.is_available() else (native,)


def _link_flags(flags: tuple[str, ...], macros: str) -> tuple[str, ...]:
    """Name an OpenMP runtime only for clang++, whose calls the one of PyTorch may lack.

    g++ leaves it unnamed: then the library finds the very runtime that PyTorch loaded, whatever its
    file is called, and ``torch.set_num_threads`` holds for both.
    """
    return ("-fopenmp",) if "-fopenmp" in flags and "__clang__" in macros else ()


def _probe(command: tuple[str, ...], flags: tuple[str, ...]) -> str | None:
    """Return the macros predefined under ``flags``, or None if the compiler refuses one.

    They tell the compiler's version and what ``native`` means on this processor.
    """
    result = subprocess.run(
        [*command, *flags, "-dM", "-E", "-x", "c++", "-"],
        input="#include <omp.h>\n" if "-fopenmp" in flags else "",
        capture_output=True,
        text=True,
    )
    return result.stdout if result.returncode == 0 else None


def _version(command: tuple[str, ...]) -> str:
    """Return the first line of ``--version``, which also names the distribution's patches."""
    result = subprocess.run(
        [*command, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return result.stdout.partition("\n")[0]
