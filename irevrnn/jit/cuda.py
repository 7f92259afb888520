"""Builds the CUDA operators and registers them, beside those of the CPU (``csrc/build.py``).

Just in time, for the GPUs that are there, when a tensor on one of them first asks for a kernel; or
ahead of time, on a machine without a GPU, by ``python -m irevrnn.jit --cuda``.

The cache has one folder for all that the code depends on (PyTorch, sources, flags), and in it a
folder for each library that was built from that, named after the architectures in it. So a library
that was built ahead is found on a node that has no nvcc, or another processor.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import torch

from irevrnn.jit import archs, ninja
from irevrnn.jit.build import SOURCES, digest, torch_build
from irevrnn.jit.cache import cached_files, cached_path, say
from irevrnn.jit.compiler import BuildError, Compiler
from irevrnn.jit.nvcc import Toolkit, check_pytorch, find_host_compiler, find_toolkit, options
from irevrnn.jit.once_per_process import OncePerProcess

#: Folders of the sources: the first is compiled, the second has the headers shared with the CPU.
FOLDERS = (SOURCES.with_name("cuda"), SOURCES)
LIBRARY = "irevrnn_cuda.so"

_SECONDS_PER_SOURCE_AND_ARCH = 30


def load() -> str:
    """Register the CUDA operators, once: from the cache, or else built for the GPUs that are there.

    Returns:
        Why that cannot be done; empty if it was.
    """
    return _load_once()


def _load(folders: tuple[Path, Path]) -> str:
    gpus = archs.of_gpus()
    if not gpus:
        return "PyTorch finds no GPU"
    for library in built(folders):
        if archs.runs(_archs_of(library), gpus) and _loads(library):
            return ""
    try:
        wanted = archs.named() or None
        if wanted and not archs.runs(wanted, gpus):
            return (
                f"IREVRNN_CUDA_ARCHS names {archs.spoken(wanted)}, and a GPU here has none of "
                f"these ({archs.spoken(gpus)}). Correct or unset it"
            )
        library = build(folders, wanted)
        if not _loads(library):
            library.unlink(missing_ok=True)
            torch.ops.load_library(build(folders, wanted))
    except (BuildError, OSError) as error:
        return str(error)
    return ""


_load_once = OncePerProcess(lambda: _load(FOLDERS))


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError as error:  # damaged since it was built, or built on a newer system
        say(f"passing over a library that does not load ({error})")
        return False
    return True


def build_ahead() -> Path:
    """Build for the architectures in ``IREVRNN_CUDA_ARCHS``, those of the GPUs, or the default.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    return build(FOLDERS, archs.named() or (None if archs.of_gpus() else archs.DEFAULT))


def build(folders: tuple[Path, Path], wanted: tuple[int, ...] | None) -> Path:
    """Return a library of the sources in the first folder, building it if the cache lacks it.

    Args:
        folders: as :data:`FOLDERS`.
        wanted: architectures; None for those that serve the GPUs that are there.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    if sys.platform == "win32":
        raise BuildError("they are not built on Windows. Use WSL, the Linux inside Windows")
    toolkit = find_toolkit()
    check_pytorch(toolkit)
    if wanted is None:
        wanted = archs.serving(archs.of_gpus(), toolkit.archs)
    archs.check_known(wanted, toolkit.archs, str(toolkit))
    host = find_host_compiler(toolkit)
    library = cached_path(f"{_family(folders)}/{_member(toolkit, host, wanted)}", LIBRARY)
    return ninja.build_once(library, lambda: _recipe(toolkit, host, folders, wanted))


def built(folders: tuple[Path, Path]) -> list[Path]:
    """Libraries of these sources that the cache has, the newest first."""
    return cached_files(f"{_family(folders)}/*/{LIBRARY}")


def _family(folders: tuple[Path, Path]) -> str:
    files = [file for folder in folders for file in _sources(folder)]
    return f"cuda-{digest((torch_build(),), files)}"


def _sources(folder: Path) -> list[Path]:
    patterns = ("*.cu", "*.cuh", "*.cpp", "*.h", "build.py", "nvcc.py")  # the latter: the flags
    return [file for pattern in patterns for file in folder.glob(pattern)]


def _member(toolkit: Toolkit, host: Compiler, wanted: tuple[int, ...]) -> str:
    texts = (toolkit.identity, host.identity, *options(host), *host.link_flags)
    return "-".join([*(f"sm{arch}" for arch in wanted), digest(texts, [])])


def _archs_of(library: Path) -> tuple[int, ...]:
    return tuple(int(arch) for arch in re.findall(r"sm(\d+)-", library.parent.name))


def _recipe(
    toolkit: Toolkit, host: Compiler, folders: tuple[Path, Path], wanted: tuple[int, ...]
) -> ninja.Recipe:
    kernels = len(list(folders[0].glob("*.cu")))
    rounds = -(-kernels // (os.cpu_count() or 1)) * len(wanted)
    return ninja.Recipe(
        what=f"the CUDA kernels for compute capability {archs.spoken(wanted)}",
        compiler=str(toolkit),
        way_out="CUDA_HOME names another toolkit, CUDAHOSTCXX another host compiler",
        rules=_rules(toolkit, host, folders, wanted),
        seconds=_SECONDS_PER_SOURCE_AND_ARCH * rounds,
    )


def _rules(
    toolkit: Toolkit, host: Compiler, folders: tuple[Path, Path], wanted: tuple[int, ...]
) -> str:
    torch_includes, torch_libraries = ninja.torch_paths()
    own = [f"-I{folder}" for folder in folders]
    device = [*options(host), *archs.nvcc_options(wanted), *own, "-c"]
    includes = [f"-isystem{path}" for path in (*torch_includes, *toolkit.includes)]
    libraries = [
        # PyTorch has loaded its runtime of CUDA by then; the toolkit's need not be found again.
        *ninja.link_options(torch_libraries, ["torch", "torch_cpu", "c10", "c10_cuda"]),
        *(f"-L{path}" for path in toolkit.libraries),
        "-lcudart",
    ]
    kernels = sorted(folders[0].glob("*.cu"))
    operators = sorted(folders[0].glob("*.cpp"))
    return "\n".join(
        [
            ninja.rule("kernels", toolkit.nvcc, *device),
            ninja.rule("operators", *host.command, *host.flags, *own, *includes, "-c"),
            ninja.rule("link", *host.command, "-shared", tail=[*host.link_flags, *libraries]),
            *(ninja.edge(f"{file.name}.o", "kernels", str(file)) for file in kernels),
            *(ninja.edge(f"{file.name}.o", "operators", str(file)) for file in operators),
            ninja.edge(LIBRARY, "link", *(f"{file.name}.o" for file in (*kernels, *operators))),
            "",
        ]
    )
