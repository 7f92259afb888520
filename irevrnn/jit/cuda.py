"""Build the CUDA operators and register them beside those of the CPU.

Just in time, for the GPUs that are there, when a tensor on one of them first asks for a kernel; or
ahead of time, on a machine without a GPU, by ``python -m irevrnn.jit --cuda``.

The cache has one folder for all that the code depends on (PyTorch, sources, flags), and in it a
folder for each library built from that, named after its architectures. So a library that was built
ahead is found on a node that has no nvcc, or another processor.

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

from irevrnn.jit import build as cpp
from irevrnn.jit import compiler
from irevrnn.jit.cache import cached_files, digest
from irevrnn.jit.commands import BuildError, last_lines, say
from irevrnn.jit.compiler import Compiler, ask, find_compiler
from irevrnn.jit.loading import load_library

#: Folders of the sources: the first is compiled, the second has the headers shared with the CPU.
FOLDERS = (cpp.SOURCES.with_name("cuda"), cpp.SOURCES)
LIBRARY = "irevrnn_cuda.so"
#: Built for where nothing says what the GPU will be. They serve Ampere, Ada and Hopper as they are,
#: and newer GPUs by just-in-time compilation.
DEFAULT_ARCHS = (80, 90)
# As for the CPU: a coupling must round alike wherever it is computed. nvcc would contract a product
# and a sum into one rounding where it likes; the cell says itself where it wants that. The other
# three are the defaults, which NVCC_APPEND_FLAGS=--use_fast_math would change.
ROUNDING = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
FLAGS = ("-std=c++20", "-O3", *ROUNDING, "--expt-relaxed-constexpr", "--extended-lambda")
#: Where the toolkit is by default.
_USUAL = "/usr/local/cuda"
#: What is run before a compiler, and so cannot be handed to nvcc as one.
_LAUNCHERS = ("ccache", "sccache", "distcc")


@cpp.once_per_process
def load(folders: tuple[Path, Path] = FOLDERS) -> str:
    """Register the CUDA operators, building them if need be; return why that fails, or ``""``."""
    here = gpus()
    if not here:
        return "PyTorch finds no GPU"
    # What the driver need not compile comes first, and of these the newest.
    for library in sorted(built(folders), key=lambda found: _needs_driver(found, here)):
        if runs(_archs_of(library), here):
            try:
                load_library(library)
                return ""
            except OSError as error:  # built on a newer system
                say(f"passing over a library that does not load ({error})")
    try:
        wanted = named_archs()
        if wanted and not runs(wanted, here):
            return f"IREVRNN_CUDA_ARCHS names {spoken(wanted)}; the GPUs here are {spoken(here)}"
        build(folders)
    except (BuildError, OSError) as error:
        return str(error)
    return ""


def build(folders: tuple[Path, Path] = FOLDERS, archs: tuple[int, ...] = ()) -> Path:
    """Load a library of the sources in the first folder, built if the cache lacks it.

    It is for the architectures given, else for those that IREVRNN_CUDA_ARCHS names, those of the
    GPUs that are there, or the default.
    """
    toolkit = find_toolkit()
    check_pytorch(toolkit)
    archs = archs or named_archs() or archs_for(gpus(), toolkit) or DEFAULT_ARCHS
    if not set(archs) <= set(toolkit.archs):
        raise BuildError(
            f"{toolkit} knows compute capability {spoken(toolkit.archs)}, and not all of "
            f"{spoken(archs)}. Name others in IREVRNN_CUDA_ARCHS, or another toolkit in "
            "CUDA_HOME; CUDA_VISIBLE_DEVICES hides a GPU"
        )
    host = find_host_compiler(toolkit)
    own = [f"-I{folder}" for folder in folders]
    device = [*options(host), *arch_options(archs)]
    words = [*host.command, *host.flags, *own, *cpp.TORCH_INCLUDES, *toolkit.includes]
    member = digest(toolkit.identity, host.identity, *device, *host.link_flags)
    name = "-".join([*(f"sm{arch}" for arch in archs), member])
    return cpp.cached_library(
        f"{_family(folders)}/{name}",
        LIBRARY,
        host,
        {
            **dict.fromkeys(sorted(folders[0].glob("*.cu")), [toolkit.nvcc, *device, *own]),
            **dict.fromkeys(sorted(folders[0].glob("*.cpp")), words),
        },
        # PyTorch has loaded its runtime of CUDA by then: the toolkit's need not be found again.
        [*cpp.TORCH_LIBRARIES, "-lc10_cuda", *toolkit.libraries, "-lcudart"],
        contents=f"the CUDA kernels for compute capability {spoken(archs)}",
        failure=f"{toolkit} or {host} failed; CUDA_HOME names another toolkit, CUDAHOSTCXX "
        "another host compiler, MAX_JOBS=1 takes less memory",
    )


def built(folders: tuple[Path, Path]) -> list[Path]:
    """Return the libraries of these sources that the cache has, newest first."""
    return cached_files(f"{_family(folders)}/*/{LIBRARY}")


def _family(folders: tuple[Path, Path]) -> str:
    sources = sorted([*folders[0].glob("*.cu"), *folders[0].glob("*.cpp")])
    files = cpp.files_of(sources, *folders)
    return f"cuda-{digest(cpp.TORCH, *FLAGS, *compiler.FLAGS, *files)}"


def _archs_of(library: Path) -> tuple[int, ...]:
    return tuple(int(arch) for arch in re.findall(r"sm(\d+)-", library.parent.name))


def _needs_driver(library: Path, gpus: tuple[int, ...]) -> bool:
    return not all(has_machine_code(_archs_of(library), gpu) for gpu in gpus)


@dataclass(frozen=True)
class Toolkit:
    """NVIDIA's compiler, the architectures that it knows, and the options that name its folders."""

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
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = f"{home}/bin" if home else f"{os.environ.get('PATH', '')}:{_USUAL}/bin"
    nvcc = shutil.which("nvcc", path=places)
    if not nvcc:
        raise BuildError(
            f"nvcc is missing: it is not in {places}. Install NVIDIA's CUDA toolkit "
            "('conda install cuda-nvcc cuda-libraries-dev'), or correct CUDA_HOME or CUDA_PATH"
        )
    # What a compilation would do names the folders.
    plan = ("--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull)
    questions = (("--version",), ("--list-gpu-arch",), plan)
    answers = [ask((nvcc, *question), variable="CUDA_HOME") for question in questions]
    identity, listed, planned = (answer.stdout + answer.stderr for answer in answers)
    version = re.search(r"release (\d+\.\d+)", identity)
    known = re.findall(r"compute_(\d+)$", listed, re.MULTILINE)
    if any(answer.returncode for answer in answers) or not version or not known:
        raise BuildError(
            f"{nvcc} does not answer as nvcc does. Name a CUDA toolkit in CUDA_HOME. It says:\n"
            f"{last_lines(identity + listed + planned)}"
        )
    return Toolkit(
        nvcc,
        version[1],
        identity,
        archs=tuple(sorted(map(int, known))),
        includes=_options(planned, "INCLUDES", "-I", "-isystem"),
        libraries=_options(planned, "LIBRARIES", "-L", "-L"),
    )


def _options(plan: str, name: str, flag: str, option: str) -> tuple[str, ...]:
    lines = re.findall(rf"^#\$ {name}=(.*)$", plan, re.MULTILINE)
    words = [word.removeprefix(flag) for line in lines for word in shlex.split(line)]
    return tuple(f"{option}{Path(word).resolve()}" for word in words if Path(word).is_dir())


def check_pytorch(toolkit: Toolkit) -> None:
    """Raise a BuildError unless PyTorch is built for the toolkit's major version of CUDA."""
    built_for = torch.version.cuda or "no CUDA"
    if toolkit.version.partition(".")[0] != built_for.partition(".")[0]:
        raise BuildError(
            f"this PyTorch is built for {built_for}, which does not go with {toolkit}. Install one "
            "of the same major version, or name another toolkit in CUDA_HOME"
        )


def find_host_compiler(toolkit: Toolkit) -> Compiler:
    """Return the C++ compiler for the host's share: that of CUDAHOSTCXX, CXX, or the first found.

    It does not tune for this machine's processor: what is built on a login node runs elsewhere.
    """
    host = find_compiler(("CUDAHOSTCXX", "CXX"), native=False)
    trial = ask((toolkit.nvcc, *options(host), "-E", "-x", "cu", os.devnull), variable="CUDA_HOME")
    if trial.returncode != 0:
        raise BuildError(
            f"{toolkit} does not take {host} as its host compiler. Name another in CUDAHOSTCXX "
            f"(or CXX), of a version that it supports. It says:\n{last_lines(trial.stderr)}"
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
    words = re.findall(r"[^;, ]+", os.environ.get("IREVRNN_CUDA_ARCHS", ""))
    for word in words:
        if not re.fullmatch(r"\d+\.\d", word):
            raise BuildError(
                f"IREVRNN_CUDA_ARCHS takes compute capabilities such as '8.0;9.0'; got {word!r}"
            )
    return tuple(sorted({int(word.replace(".", "")) for word in words}))


def gpus() -> tuple[int, ...]:
    """Return the architectures of the GPUs that this process sees, in rising order."""
    if not torch.cuda.is_available():
        return ()
    capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return tuple(sorted({10 * major + minor for major, minor in capabilities}))


def archs_for(gpus: Iterable[int], toolkit: Toolkit) -> tuple[int, ...]:
    """Return those of the toolkit's architectures that serve these GPUs best, in rising order."""
    newest = {max((arch for arch in toolkit.archs if arch <= gpu), default=gpu) for gpu in gpus}
    return tuple(sorted(newest))


def runs(built: tuple[int, ...], gpus: Iterable[int]) -> bool:
    """Return whether a library for some architectures runs on all of these GPUs.

    Machine code runs on its own major version from its minor version on; the newest architecture is
    there as PTX too, which the driver compiles for whatever is newer.
    """
    return all(max(built) <= gpu or has_machine_code(built, gpu) for gpu in gpus)


def has_machine_code(built: tuple[int, ...], gpu: int) -> bool:
    """Return whether a library for some architectures runs on a GPU as it is."""
    return any(arch // 10 == gpu // 10 and arch <= gpu for arch in built)


def arch_options(archs: tuple[int, ...]) -> list[str]:
    """Return options by which nvcc makes machine code for each, and PTX for the newest."""
    newest = max(archs)
    codes = [*((arch, f"sm_{arch}") for arch in archs), (newest, f"compute_{newest}")]
    return [f"-gencode=arch=compute_{arch},code={code}" for arch, code in codes]


def spoken(archs: Iterable[int]) -> str:
    """Return architectures as NVIDIA writes them: 8.0, 9.0."""
    return ", ".join(f"{arch // 10}.{arch % 10}" for arch in archs)
