"""Finds NVIDIA's compiler, what it knows, and whether it fits PyTorch and the host compiler."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from irevrnn.jit.compiler import BuildError, Compiler, ask, find_compiler

#: Where the toolkit is by default, as PyTorch's own builds have it.
_USUAL = "/usr/local/cuda"
#: What is run before a compiler, and so cannot be handed to nvcc as one.
_LAUNCHERS = ("ccache", "sccache", "distcc")
# As for the CPU: a coupling must round alike wherever it is computed. nvcc would contract a product
# and a sum into one rounding where it likes; the cell says itself where it wants that.
_FLAGS = ("-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "--extended-lambda")


@dataclass(frozen=True)
class Toolkit:
    """NVIDIA's compiler and the folders of its toolkit.

    Attributes:
        nvcc: path of the compiler.
        version: such as ``"13.0"``.
        identity: all that ``nvcc --version`` tells.
        archs: it can compile for, in rising order (``archs.py``).
        includes, libraries: folders of the toolkit.
    """

    nvcc: str
    version: str
    identity: str
    archs: tuple[int, ...]
    includes: tuple[str, ...]
    libraries: tuple[str, ...]

    def __str__(self) -> str:
        return f"nvcc {self.version} ({self.nvcc})"


def find_toolkit() -> Toolkit:
    """Return the toolkit of CUDA_HOME or CUDA_PATH, else that of the nvcc on PATH or the usual one.

    That is the order of ``torch.utils.cpp_extension``, which is not asked, as it takes a folder
    for the toolkit's that only has a wrapper of nvcc in it; nvcc itself knows where it lies.

    Raises:
        BuildError: there is none, or it does not answer.
    """
    nvcc = _find_nvcc()
    identity = _answer(nvcc, "--version")
    version = re.search(r"release (\d+\.\d+)", identity)
    known = re.findall(r"compute_(\d+)$", _answer(nvcc, "--list-gpu-arch"), re.MULTILINE)
    if not version or not known:
        raise BuildError(f"{nvcc} does not answer as nvcc does. Name a CUDA toolkit in CUDA_HOME")
    # What a compilation would do: there it names its folders.
    plan = _answer(nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull)
    return Toolkit(
        nvcc=nvcc,
        version=version[1],
        identity=identity,
        archs=tuple(sorted(map(int, known))),
        includes=_folders(plan, "INCLUDES", "-I"),
        libraries=_folders(plan, "LIBRARIES", "-L"),
    )


def _find_nvcc() -> str:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            nvcc = Path(home, "bin", "nvcc")
            if not os.access(nvcc, os.X_OK):
                raise BuildError(
                    f"{variable} names {home!r}, which has no bin/nvcc. Correct or unset it"
                )
            return str(nvcc)
    found = shutil.which("nvcc") or shutil.which("nvcc", path=f"{_USUAL}/bin")
    if found:
        return found
    raise BuildError(
        f"nvcc is missing: it is neither on PATH nor in {_USUAL}. Install NVIDIA's CUDA toolkit "
        "('conda install cuda-nvcc cuda-libraries-dev') or name it in CUDA_HOME"
    )


def _answer(nvcc: str, *question: str) -> str:
    done = ask((nvcc, *question), variable="CUDA_HOME")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise BuildError(f"{nvcc} {question[0]} failed ({said[-1]}). Name another in CUDA_HOME")
    return done.stdout + done.stderr


def _folders(plan: str, name: str, flag: str) -> tuple[str, ...]:
    lines = re.findall(rf"^#\$ {name}=(.*)$", plan, re.MULTILINE)
    words = [word.removeprefix(flag) for line in lines for word in shlex.split(line)]
    return tuple(str(Path(word).resolve()) for word in words if Path(word).is_dir())


def check_pytorch(toolkit: Toolkit) -> None:
    """Raise a BuildError unless PyTorch runs on the toolkit's major version of CUDA."""
    if torch.version.cuda is None:
        raise BuildError("this PyTorch is a build without CUDA. Install one with it")
    if toolkit.version.partition(".")[0] != torch.version.cuda.partition(".")[0]:
        raise BuildError(
            f"{toolkit} and PyTorch, built for CUDA {torch.version.cuda}, differ in their major "
            f"version. Name a toolkit of PyTorch's version in CUDA_HOME, or install a PyTorch for "
            f"CUDA {toolkit.version}"
        )


def find_host_compiler(toolkit: Toolkit) -> Compiler:
    """Return the C++ compiler for the host's share: that of CUDAHOSTCXX, CXX, or the first found.

    It does not tune for this machine's processor: what is built on a login node runs elsewhere.

    Raises:
        BuildError: there is none, or nvcc does not take it.
    """
    host = find_compiler(("CUDAHOSTCXX", "CXX"), native=False)
    trial = ask((toolkit.nvcc, *options(host), "-E", "-x", "cu", os.devnull), variable="CUDA_HOME")
    if trial.returncode != 0:
        said = re.findall(r".*error.*", trial.stderr) or trial.stderr.splitlines()[-1:]
        raise BuildError(
            f"{toolkit} does not take {shlex.join(host.command)} as its host compiler: "
            f"{' '.join(said[:1]).strip()}. Name another in CUDAHOSTCXX (or CXX), of a version "
            "that it supports"
        )
    return host


def options(host: Compiler) -> list[str]:
    """Options of nvcc that fix how numbers round, and hand the host compiler its own."""
    words = [word for word in host.command if Path(word).name not in _LAUNCHERS]
    own = [flag for flag in (*words[1:], *host.flags) if not flag.startswith("-std=")]
    handed = [f"-Xcompiler={flag}".replace(",", r"\,") for flag in own]  # nvcc splits at commas
    return ["-ccbin", words[0], *_FLAGS, *handed]
