"""Find the C++ compiler and what it can do on this machine."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from irevrnn.jit.commands import BuildError

Answer: TypeAlias = subprocess.CompletedProcess[str]
#: Seconds after which a compiler that was asked for its version or macros counts as hanging.
PATIENCE = 60
# C++20 is what PyTorch's headers ask for. Contraction is off because a coupling must round alike
# wherever it is computed, or it cannot be undone.
FLAGS = (
    *["-std=c++20", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno"],
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
)
#: How flags begin that name a processor.
_PROCESSOR = ("-march=", "-mcpu=")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, the flags it takes and all that tells its output from another's."""

    command: tuple[str, ...]
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    identity: str

    def __str__(self) -> str:
        return shlex.join(self.command)


def find_compiler(
    variables: tuple[str, ...] = ("CXX",), *, native: bool = True, processor: tuple[str, ...] = ()
) -> Compiler:
    """Return the compiler that the first of the variables that is set names, or the first found.

    Flags in IREVRNN_CXXFLAGS are added to its own, for compiling and linking: for sanitizers, say.
    If ``native``, the code may use OpenMP, and all that this machine's processor can do, unless the
    flags in ``processor`` or IREVRNN_CXXFLAGS name another one.
    """
    if sys.platform == "win32":
        raise BuildError("the kernels are not built on Windows. Use WSL, the Linux inside Windows")
    command = _command(variables)
    own = _words("IREVRNN_CXXFLAGS")
    flags = (*FLAGS, *processor, *own)
    macros = _macros(command, flags)
    if macros is None:
        raise BuildError(
            f"{shlex.join(command)} does not take {' '.join(flags)}. Name a newer compiler in CXX "
            "(g++ 11 or clang++ 14 will do)"
        )
    optional = []  # they make the kernels faster, where the compiler takes them
    if native and not processor and not any(flag.startswith(_PROCESSOR) for flag in own):
        arm = platform.machine() in ("aarch64", "arm64")
        optional.append("-mcpu=native" if arm else "-march=native")
    if native and torch.backends.openmp.is_available():  # at::parallel_for runs on it
        optional.append("-fopenmp")
    for flag in optional:
        answer = _macros(command, (*flags, flag))
        if answer is not None:
            flags, macros = (*flags, flag), answer
    # g++ names no OpenMP runtime: then the library finds the very one that PyTorch loaded, whatever
    # its file is called, and torch.set_num_threads holds for both. clang++ calls functions that the
    # one of PyTorch may lack.
    openmp = ("-fopenmp",) if "-fopenmp" in flags and "__clang__" in macros else ()
    # The first line of --version names the distribution's patches, too.
    version = ask((*command, "--version")).stdout.partition("\n")[0]
    return Compiler(command, flags, (*openmp, *own), identity=version + macros)


def _command(variables: tuple[str, ...]) -> tuple[str, ...]:
    for variable in variables:
        if not (command := _words(variable)):
            continue
        if shutil.which(command[0]):
            if os.sep in command[0]:  # the build runs in another folder
                return (os.path.abspath(command[0]), *command[1:])
            return command
        raise BuildError(
            f"{variable} names {os.environ[variable]!r}, which is not there. Correct or unset it"
        )
    for name in filter(shutil.which, ("g++", "c++", "clang++")):
        return (name,)
    raise BuildError(
        "there is no C++ compiler. 'apt install g++' or 'conda install gxx' brings one "
        "('xcode-select --install' on a Mac)"
    )


def _words(variable: str) -> tuple[str, ...]:
    """Return the words of an environment variable, none if it is not set."""
    value = os.environ.get(variable, "")
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise BuildError(
            f"{variable} is {value!r}, which a shell would not take: {error}"
        ) from None


def _macros(command: tuple[str, ...], flags: tuple[str, ...]) -> str | None:
    """Return the macros predefined under ``flags``, or None if the compiler refuses one."""
    source = "#include <omp.h>\n" if "-fopenmp" in flags else ""
    result = ask((*command, *flags, "-dM", "-E", "-x", "c++", "-"), source)
    return result.stdout if result.returncode == 0 else None


def ask(command: Sequence[str], source: str = "", variable: str = "CXX") -> Answer:
    """Ask a compiler, which ``variable`` may name, for something that it knows at once."""
    try:
        return subprocess.run(
            command, input=source, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"{command[0]} did not answer within {PATIENCE} s. Name another compiler in {variable}"
        ) from None
