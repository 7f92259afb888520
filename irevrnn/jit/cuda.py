"""Build the CUDA operators and register them beside those of the CPU.

Just in time, for the GPUs that are there, when a tensor on one of them first asks for a kernel; or
ahead of time, on a machine without a GPU, by ``python -m irevrnn.jit --cuda``.

The cache has one folder for all that the code depends on (PyTorch, sources, flags), and in it a
folder for each library built from that, named after its architectures. So a library that was built
ahead is found on a node that has no nvcc, or another processor.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from irevrnn.jit import compiler, nvcc
from irevrnn.jit.build import SOURCES, load_library, once_per_process
from irevrnn.jit.cache import cached, cached_files, digest
from irevrnn.jit.commands import BuildError, say
from irevrnn.jit.library import make_library, torch_build, torch_options

#: Folders of the sources: the first is compiled, the second has the headers shared with the CPU.
FOLDERS = (SOURCES.with_name("cuda"), SOURCES)
LIBRARY = "irevrnn_cuda.so"


@once_per_process
def load() -> str:
    """Register the CUDA operators, once: from the cache, or else built for the GPUs that are there.

    Returns:
        Why that cannot be done; empty if it was.
    """
    return _load(FOLDERS)


def _load(folders: tuple[Path, Path]) -> str:
    gpus = nvcc.gpus()
    if not gpus:
        return "PyTorch finds no GPU"
    for library in built(folders):
        if nvcc.runs(_archs_of(library), gpus):
            try:
                torch.ops.load_library(library)
                return ""
            except OSError as error:  # built on a newer system
                say(f"passing over a library that does not load ({error})")
    try:
        wanted = nvcc.named_archs()
        if wanted and not nvcc.runs(wanted, gpus):
            return (
                f"IREVRNN_CUDA_ARCHS names {nvcc.spoken(wanted)}, and a GPU here has none of "
                f"these ({nvcc.spoken(gpus)}). Correct or unset it"
            )
        load_library(lambda: build(folders, wanted))
    except (BuildError, OSError) as error:
        return str(error)
    return ""


def build_ahead() -> Path:
    """Build for the architectures in IREVRNN_CUDA_ARCHS, those of the GPUs, or the default.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    return build(FOLDERS, nvcc.named_archs() or (() if nvcc.gpus() else nvcc.DEFAULT_ARCHS))


def build(folders: tuple[Path, Path], archs: tuple[int, ...]) -> Path:
    """Return a library of the sources in the first folder, building it if the cache lacks it.

    Args:
        folders: as :data:`FOLDERS`.
        archs: architectures; if empty, those that serve the GPUs that are there.
    """
    toolkit = nvcc.find_toolkit()
    nvcc.check_pytorch(toolkit)
    archs = archs or nvcc.archs_for(nvcc.gpus(), toolkit.archs)
    nvcc.check_known(archs, toolkit)
    host = nvcc.find_host_compiler(toolkit)
    device = [*nvcc.options(host), *nvcc.arch_options(archs)]

    def make(folder: Path) -> Path:
        # PyTorch has loaded its runtime of CUDA by then: the toolkit's need not be found again.
        includes, libraries = torch_options("torch", "torch_cpu", "c10", "c10_cuda")
        includes += [f"-isystem{path}" for path in toolkit.includes]
        libraries += [*(f"-L{path}" for path in toolkit.libraries), "-lcudart"]
        own = [f"-I{folder}" for folder in folders]
        kernels, operators = (sorted(folders[0].glob(ending)) for ending in ("*.cu", "*.cpp"))
        return make_library(
            folder / LIBRARY,
            contents=f"the CUDA kernels for compute capability {nvcc.spoken(archs)}",
            failure=f"{toolkit} or {host} failed; CUDA_HOME names another toolkit, CUDAHOSTCXX "
            "another host compiler, MAX_JOBS=1 takes less memory",
            compilations={
                **dict.fromkeys(kernels, [toolkit.nvcc, *device, *own]),
                **dict.fromkeys(operators, [*host.command, *host.flags, *own, *includes]),
            },
            linking=[*host.command, "-shared"],
            options=[*host.link_flags, *libraries],
        )

    member = digest(toolkit.identity, host.identity, *device, *host.link_flags)
    name = "-".join([*(f"sm{arch}" for arch in archs), member])
    return cached(f"{_family(folders)}/{name}", LIBRARY, make)


def built(folders: tuple[Path, Path]) -> list[Path]:
    """Return the libraries of these sources that the cache has, newest first."""
    return cached_files(f"{_family(folders)}/*/{LIBRARY}")


def _family(folders: tuple[Path, Path]) -> str:
    patterns = ("*.cu", "*.cuh", "*.cpp", "*.h")
    files = [file for folder in folders for ending in patterns for file in folder.glob(ending)]
    return f"cuda-{digest(torch_build(), *nvcc.FLAGS, *compiler.FLAGS, *sorted(files))}"


def _archs_of(library: Path) -> tuple[int, ...]:
    return tuple(int(arch) for arch in re.findall(r"sm(\d+)-", library.parent.name))
