"""Build the CUDA operators and register them beside those of the CPU.

In the cache, the folder of a library is named after its architectures, inside one named after all
else that its code depends on. So one that was built ahead is found on a node that has no nvcc. An
architecture is a number: 80 is compute capability 8.0, 100 is 10.0.
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
    here = gpus()
    if not here:
        return "PyTorch finds no GPU"
    found = [
        ([int(arch) for arch in re.findall(r"sm(\d+)", path.parent.name)], path)
        for path in (cpp.cache_folder() / _family()).glob(f"*/{LIBRARY}")
    ]
    for archs, library in sorted(found, reverse=True):
        if min(archs) <= min(here) and cpp.loads(library):
            return ""
    try:
        named = named_archs()
        if named and min(named) > min(here):
            return f"IREVRNN_CUDA_ARCHS names {named}, and the GPUs here are {here}"
        build()
    except (BuildError, OSError) as error:
        return str(error)
    return ""


def build() -> Path:
    """Load a library of the sources in the first folder, built if the cache lacks it.

    Its architectures are those that IREVRNN_CUDA_ARCHS names, else those of the GPUs here, else the
    default. It has machine code for each, and PTX for any newer GPU.
    """
    nvcc, identity = find_nvcc()
    release = re.search(r"release (\d+)", identity)
    if not release or release[1] != str(torch.version.cuda).partition(".")[0]:
        raise BuildError(
            f"this PyTorch is built for CUDA {torch.version.cuda}, and {nvcc[0]} is not of that "
            f"major version. CUDA_HOME names another. It says:\n{identity[:300]}"
        )
    archs = named_archs() or gpus() or DEFAULT_ARCHS
    codes = [f"-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]" for arch in archs]
    words = [*nvcc, *codes, *(f"-I{folder}" for folder in FOLDERS), *cpp.TORCH_INCLUDES]
    # PyTorch has loaded its runtime of CUDA by then: the toolkit's need not be found again.
    link = [*nvcc, "-cudart=shared", *cpp.TORCH_LIBRARIES, "-lc10_cuda"]
    name = "-".join([*(f"sm{arch}" for arch in archs), cpp.digest(identity, *nvcc)])
    return cpp.cached_library(
        f"{_family()}/{name}/{LIBRARY}",
        lambda path: cpp.compile_library(path, _sources(), words, link),
        f" for architectures {archs}",
    )


def _sources() -> list[Path]:
    return sorted([*FOLDERS[0].glob("*.cu"), *FOLDERS[0].glob("*.cpp")])


def _family() -> str:
    files = cpp.files_of(_sources(), *FOLDERS)
    return f"cuda-{cpp.digest(cpp.TORCH, *FLAGS, *HOST_FLAGS, *files)}"


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
    own = [flag.replace(",", r"\,") for flag in host.flags if not flag.startswith("-std=")]
    handed = [f"-Xcompiler={flag}" for flag in own]  # it splits at commas
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
