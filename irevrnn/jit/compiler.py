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


#: Seconds after which a compiler that was asked for its version or macros counts as hanging.
PATIENCE = 60


class BuildError(RuntimeError):
    """The operators cannot be built; the message says why and what helps."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, the flags it takes and all that tells its output from another's."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    identity: str


def find_compiler(variables: tuple[str, ...] = ("CXX",), *, native: bool = True) -> Compiler:
    """Return the compiler that an environment variable names, or else the first one found.

    Flags in IREVRNN_CXXFLAGS are added to its own, for compiling and linking: for sanitizers, say.

    Args:
        variables: names of the variables that may name it; the first that is set counts.
        native: whether the code may ask for all that this machine's processor can do, and for the
            threads of OpenMP.

    Raises:
        BuildError: if there is none, or one too old.
    """
    command = _command(variables)
    own = tuple(shlex.split(os.environ.get("IREVRNN_CXXFLAGS", "")))
    flags = (*_FLAGS, *own)
    macros = _probe(command, flags)
    if macros is None:
        raise BuildError(
            f"{shlex.join(command)} does not take {' '.join(flags)}. Name a newer compiler in CXX "
            "(g++ 11 or clang++ 14 will do)"
        )
    for flag in _optional_flags() if native else ():
        answer = _probe(command, (*flags, flag))
        if answer is not None:
            flags, macros = (*flags, flag), answer
    link_flags = (*_link_flags(flags, macros), *own)
    return Compiler(command, flags, link_flags, identity=_version(command) + macros)


def _command(variables: tuple[str, ...]) -> tuple[str, ...]:
    for variable in variables:
        named = os.environ.get(variable)
        if named:
            command = tuple(shlex.split(named))
            if shutil.which(command[0]):
                return command
            raise BuildError(f"{variable} names {named!r}, which is not there. Correct or unset it")
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
    source = "#include <omp.h>\n" if "-fopenmp" in flags else ""
    result = ask((*command, *flags, "-dM", "-E", "-x", "c++", "-"), source)
    return result.stdout if result.returncode == 0 else None


def _version(command: tuple[str, ...]) -> str:
    """Return the first line of ``--version``, which also names the distribution's patches."""
    return ask((*command, "--version")).stdout.partition("\n")[0]


def ask(
    command: tuple[str, ...], source: str = "", *, variable: str = "CXX"
) -> subprocess.CompletedProcess[str]:
    """Ask a compiler for something that it knows at once.

    Raises:
        BuildError: it hangs; the message says that ``variable`` names another.
    """
    try:
        return subprocess.run(
            command, input=source, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"{command[0]} did not answer within {PATIENCE} s. Name another compiler in {variable}"
        ) from None
