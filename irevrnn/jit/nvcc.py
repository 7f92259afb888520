"""Find NVIDIA's compiler, a host compiler that it takes, and the GPUs to compile for.

An architecture is a number: 80 is compute capability 8.0, 100 is 10.0.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from irevrnn.jit.commands import BuildError
from irevrnn.jit.compiler import Compiler, ask, find_compiler

#: Built for where nothing says what the GPU will be. They serve Ampere, Ada and Hopper as they are,
#: and newer GPUs by just-in-time compilation.
DEFAULT_ARCHS = (80, 90)
# As for the CPU: a coupling must round alike wherever it is computed. nvcc would contract a product
# and a sum into one rounding where it likes; the cell says itself where it wants that.
FLAGS = ("-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "--extended-lambda")
#: Where the toolkit is by default.
_USUAL = "/usr/local/cuda"
#: What is run before a compiler, and so cannot be handed to nvcc as one.
_LAUNCHERS = ("ccache", "sccache", "distcc")


@dataclass(frozen=True)
class Toolkit:
    """NVIDIA's compiler, the architectures that it knows, and the folders of its toolkit."""

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

    ``torch.utils.cpp_extension`` looks in the same order, but takes a folder for the toolkit's that
    only has a wrapper of nvcc in it; nvcc itself knows where it lies.

    Raises:
        BuildError: there is none, or it does not answer.
    """
    nvcc = _find_nvcc()
    identity = _answer(nvcc, "--version")
    version = re.search(r"release (\d+\.\d+)", identity)
    known = re.findall(r"compute_(\d+)$", _answer(nvcc, "--list-gpu-arch"), re.MULTILINE)
    if not version or not known:
        raise BuildError(f"{nvcc} does not answer as nvcc does. Name a CUDA toolkit in CUDA_HOME")
    # What a compilation would do names the folders.
    plan = _answer(nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull)
    return Toolkit(
        nvcc,
        version[1],
        identity,
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
    """Raise a BuildError unless PyTorch is built for the toolkit's major version of CUDA."""
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
            f"{toolkit} does not take {host} as its host compiler: {' '.join(said[:1]).strip()}. "
            "Name another in CUDAHOSTCXX (or CXX), of a version that it supports"
        )
    return host


def options(host: Compiler) -> list[str]:
    """Return options of nvcc that fix how numbers round, and hand the host compiler its own."""
    words = [word for word in host.command if Path(word).name not in _LAUNCHERS]
    own = [flag for flag in (*words[1:], *host.flags) if not flag.startswith("-std=")]
    handed = [f"-Xcompiler={flag}".replace(",", r"\,") for flag in own]  # nvcc splits at commas
    return ["-ccbin", words[0], *FLAGS, *handed]


def named_archs() -> tuple[int, ...]:
    """Return the architectures that IREVRNN_CUDA_ARCHS names, in rising order."""
    words = re.split(r"[;, ]+", os.environ.get("IREVRNN_CUDA_ARCHS", "").strip(";, "))
    for word in filter(None, words):
        if not re.fullmatch(r"\d+\.\d", word):
            raise BuildError(
                f"IREVRNN_CUDA_ARCHS takes compute capabilities such as '8.0;9.0'; got {word!r}"
            )
    return tuple(sorted({int(word.replace(".", "")) for word in words if word}))


def gpus() -> tuple[int, ...]:
    """Return the architectures of the GPUs that this process sees, in rising order."""
    if not torch.cuda.is_available():
        return ()
    capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return tuple(sorted({10 * major + minor for major, minor in capabilities}))


def archs_for(gpus: Iterable[int], known: tuple[int, ...]) -> tuple[int, ...]:
    """Return those of the known architectures that serve these GPUs best, in rising order."""
    chosen = set()
    for gpu in gpus:
        if gpu < min(known):
            raise BuildError(
                f"nvcc knows compute capability {spoken(known)}, and a GPU here has "
                f"{spoken([gpu])}. Name an older toolkit in CUDA_HOME, or hide that GPU with "
                "CUDA_VISIBLE_DEVICES"
            )
        chosen.add(max(arch for arch in known if arch <= gpu))
    return tuple(sorted(chosen))


def check_known(archs: Iterable[int], toolkit: Toolkit) -> None:
    """Raise a BuildError for an architecture that the toolkit cannot compile for."""
    unknown = [arch for arch in archs if arch not in toolkit.archs]
    if unknown:
        raise BuildError(
            f"{toolkit} does not know compute capability {spoken(unknown)}; it knows "
            f"{spoken(toolkit.archs)}. Correct IREVRNN_CUDA_ARCHS"
        )


def runs(built: tuple[int, ...], gpus: Iterable[int]) -> bool:
    """Return whether a library for some architectures runs on all of these GPUs.

    Machine code runs on its own major version from its minor version on; the newest architecture is
    there as PTX too, which the driver compiles for whatever is newer.
    """
    return all(
        max(built) <= gpu or any(arch // 10 == gpu // 10 and arch <= gpu for arch in built)
        for gpu in gpus
    )


def arch_options(archs: tuple[int, ...]) -> list[str]:
    """Return options by which nvcc makes machine code for each, and PTX for the newest."""
    pairs = [f"arch=compute_{arch},code=sm_{arch}" for arch in archs]
    pairs.append(f"arch=compute_{max(archs)},code=compute_{max(archs)}")
    return [word for pair in pairs for word in ("-gencode", pair)]


def spoken(archs: Iterable[int]) -> str:
    """Return architectures as NVIDIA writes them: 8.0, 9.0."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
