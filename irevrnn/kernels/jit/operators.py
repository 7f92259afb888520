"""Load the C++ operators, which registers them with PyTorch.

A library that came compiled with the package is taken if one fits, else the cache's, built if it is
missing. ``make wheel`` compiles ahead: for a release of PyTorch, one for each instruction set.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from irevrnn.kernels.jit import build
from irevrnn.kernels.jit.compiler import BuildError, find_compiler

#: Where those are that came compiled with the package. A clone has none.
FOLDER = Path(__file__).parents[2] / "prebuilt"
NAME = "irevrnn_ops"
#: For each machine its instruction sets, the best first, and the compiler's flags. On x86-64 these
#: are the sets that PyTorch has kernels for: it can tell whether a processor has them.
_INSTRUCTION_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"),
        "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    },
    "aarch64": {"ARMv8": ("-march=armv8-a",)},
    "arm64": {"ARMv8": ("-march=armv8-a",)},
}


def load() -> bool:
    """Register the operators, building them if need be; warn and return False if that fails."""
    try:
        build_operators()
    except (BuildError, OSError) as error:
        build.warn(
            f"irevrnn runs its slow PyTorch reference, because the C++ kernels could not be built: "
            f"{error}\nCompared with nn.LSTM, training takes about 2.4 times as long with "
            "memory='recompute' (the default), and 0.8 times as long with memory='store'."
        )
        return False
    return True


def build_operators() -> Path:
    """Load the C++ operators; return their library: the package's, the cache's, or a new one."""
    there = sorted(f"{path.parent.name}/{path.name}" for path in FOLDER.glob(f"*/{NAME}.so"))
    if not there or os.environ.get("IREVRNN_CXXFLAGS"):
        return build.build_extension(NAME, _sources())
    usable = list(_INSTRUCTION_SETS.get(platform.machine(), ()))
    if platform.machine() == "x86_64":  # PyTorch's ATEN_CPU_CAPABILITY=avx2 leaves out AVX-512
        best = torch.backends.cpu.get_cpu_capability()
        usable = usable[usable.index(best) :] if best in usable else []
    for library in (FOLDER / _place(instructions) for instructions in usable):
        if build.loads(library):
            return library
    note = f" (compiled ahead are {', '.join(there)}; wanted is {_place('/'.join(usable))})"
    try:
        return build.build_extension(NAME, _sources(), note)
    except BuildError as error:
        raise BuildError(f"{error}{note}") from error


def prebuild(folder: Path) -> list[Path]:
    """Build the operators for a package, a library for each instruction set; return the paths."""
    machine = platform.machine()
    if os.environ.get("IREVRNN_CXXFLAGS") or machine not in _INSTRUCTION_SETS:
        raise BuildError(
            f"kernels are compiled ahead for {', '.join(_INSTRUCTION_SETS)} (this is {machine}), "
            "and without IREVRNN_CXXFLAGS: unset it"
        )
    libraries = []
    for instructions, flags in _INSTRUCTION_SETS[machine].items():
        libraries.append(folder.absolute() / _place(instructions))
        libraries[-1].parent.mkdir(parents=True, exist_ok=True)
        build.compile_extension(libraries[-1], _sources(), find_compiler(processor=flags))
    return libraries


def _sources() -> list[Path]:
    return sorted(build.SOURCES.glob("*.cpp"))


def _place(instructions: str) -> str:
    """Name a library after its release of PyTorch (for CPU or CUDA), processor and sources."""
    release = f"{torch.__version__.partition('+')[0]}-{str(torch.version.git_version)[:7]}"
    made_from = build.digest(*build.files_of(_sources(), build.SOURCES))
    return f"torch{release}-{instructions}-{made_from}/{NAME}.so"
