"""Build the CUDA operators and register them beside those of the CPU.

An architecture is a number: 80 is compute capability 8.0, 100 is 10.0.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import torch

from irevrnn.kernels.jit import build as cpp
from irevrnn.kernels.jit.compiler import FLAGS as HOST_FLAGS
from irevrnn.kernels.jit.compiler import BuildError, ask, find_compiler

#: Folders of the sources: the first is compiled, the second has the headers shared with the CPU.
FOLDERS = (Path(__file__).parents[2] / "cuda", cpp.SOURCES)
LIBRARY = "irevrnn_cuda.so"
#: Built for where nothing says what the GPU will be: Ampere, Ada, Hopper, and newer ones by PTX.
DEFAULT_ARCHS = (80, 90)
# As for the CPU: a coupling must round alike wherever it is computed, so nvcc must not contract a
# product and a sum. NVCC_APPEND_FLAGS=--use_fast_math would change the other three.
ROUNDING = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
FLAGS = ("-std=c++20", "-O3", *ROUNDING, "--expt-relaxed-constexpr", "--extended-lambda")


@cpp.once_per_process
def load() -> str:
    """Register the CUDA operators, building them if need be; return why that fails, or ``""``."""
    if not (here := gpus()):
        return "PyTorch finds no GPU"
    try:
        if min(archs := named_archs() or here) > min(here):
            return f"IREVRNN_CUDA_ARCHS names {archs}, and the GPUs here are {here}"
        build()
    except (BuildError, OSError) as error:
        return str(error)
    return ""


def build() -> Path:
    """Load a library of the sources in the first folder, built if the cache lacks it.

    It has machine code for the architectures that IREVRNN_CUDA_ARCHS names, else for those of the
    GPUs here, else for the default ones, and PTX for any newer GPU. Its place in the cache does not
    depend on nvcc, so a node that has none finds what was built ahead.
    """
    archs = named_archs() or gpus() or DEFAULT_ARCHS
    sources = sorted([*FOLDERS[0].glob("*.cu"), *FOLDERS[0].glob("*.cpp")])
    own = os.environ.get("IREVRNN_CXXFLAGS", "")
    files = cpp.files_of(sources, *FOLDERS)
    key = cpp.digest(cpp.TORCH, *FLAGS, *HOST_FLAGS, own, *files)

    def compile_for_archs(library: Path) -> None:
        nvcc, identity = find_nvcc()
        release = re.search(r"release (\d+)", identity)
        if not release or release[1] != str(torch.version.cuda).partition(".")[0]:
            raise BuildError(
                f"this PyTorch is built for CUDA {torch.version.cuda}, and {nvcc[0]} is not of its "
                f"major version. CUDA_HOME names another. It says:\n{identity[:300]}"
            )
        codes = [f"-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]" for arch in archs]
        words = [*nvcc, *codes, *(f"-I{folder}" for folder in FOLDERS), *cpp.TORCH_INCLUDES]
        # PyTorch has loaded its runtime of CUDA by then: the toolkit's need not be found again.
        link = [*nvcc, "-cudart=shared", *cpp.TORCH_LIBRARIES, "-lc10_cuda"]
        cpp.compile_library(library, sources, words, link)

    place = f"cuda-{key}/{'-'.join(f'sm{arch}' for arch in archs)}/{LIBRARY}"
    return cpp.cached_library(place, compile_for_archs, f" for architectures {archs}")


def find_nvcc() -> tuple[list[str], str]:
    """Return nvcc with its options, and all that tells its output from another's.

    The host compiler does not tune for this processor: what a login node builds runs elsewhere.
    """
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{home}/bin" if home else None)
    if not nvcc:
        raise BuildError(
            f"nvcc is missing from {home or 'PATH'}. Install NVIDIA's CUDA toolkit ('conda install "
            "cuda-nvcc cuda-libraries-dev'), or name its folder in CUDA_HOME"
        )
    host = find_compiler(("CUDAHOSTCXX", "CXX"), native=False)
    handed = [f"-Xcompiler={flag}" for flag in host.flags if not flag.startswith("-std=")]
    identity = ask(nvcc, "--version") + host.identity
    return [nvcc, "-ccbin", host.command, *FLAGS, *handed], identity


def named_archs() -> tuple[int, ...]:
    """Return the architectures that IREVRNN_CUDA_ARCHS names, in rising order."""
    named = os.environ.get("IREVRNN_CUDA_ARCHS", "")
    try:
        return tuple(sorted({round(10 * float(word)) for word in re.findall("[^;, ]+", named)}))
    except ValueError:
        wanted = "compute capabilities such as '8.0;9.0'"
        raise BuildError(f"IREVRNN_CUDA_ARCHS takes {wanted}; got {named!r}") from None


def gpus() -> tuple[int, ...]:
    """Return the architectures of the GPUs that this process sees, in rising order."""
    if not torch.cuda.is_available():
        return ()
    capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return tuple(sorted({10 * major + minor for major, minor in capabilities}))
