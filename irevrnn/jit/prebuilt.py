"""Take the C++ operators from libraries that came compiled with the package.

``make wheel`` puts them into the wheel: for each release of PyTorch and each instruction set a
folder that holds the library and a manifest. A clone, or what pip builds from one, has none.

A library goes with one release of PyTorch, since it uses PyTorch's C++ interface, and with any
version of Python.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from irevrnn.jit.cache import is_intact, put
from irevrnn.jit.commands import BuildError, say
from irevrnn.jit.loading import load_library

FOLDER = Path(__file__).parents[1] / "prebuilt"
LIBRARY, MANIFEST = "irevrnn_ops.so", "manifest.json"
#: For each machine its instruction sets, the best first, and the compiler's flags. On x86-64 these
#: are the sets that PyTorch has kernels for, by its flags for them: so it can tell whether a
#: processor has them.
_INSTRUCTION_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"),
        "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    },
    "aarch64": {"ARMv8": ("-march=armv8-a",)},
    "arm64": {"ARMv8": ("-march=armv8-a",)},
}


@dataclass(frozen=True)
class Manifest:
    """The release of PyTorch, the instruction set and a digest of the sources of a library."""

    torch: str
    instructions: str
    sources: str


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Return the compiler's flags for each instruction set of machines of this kind, best first.

    Raises:
        BuildError: nothing is compiled ahead for such machines.
    """
    if platform.machine() not in _INSTRUCTION_SETS:
        known = ", ".join(_INSTRUCTION_SETS)
        raise BuildError(f"kernels are compiled ahead for {known}, not for {platform.machine()}")
    return _INSTRUCTION_SETS[platform.machine()]


def usable_sets() -> list[str]:
    """Return those instruction sets that this processor has, the best first.

    PyTorch's ATEN_CPU_CAPABILITY=avx2 leaves out AVX-512 here, too.
    """
    known = list(_INSTRUCTION_SETS.get(platform.machine(), ()))
    if platform.machine() != "x86_64":
        return known
    best = torch.backends.cpu.get_cpu_capability()
    return known[known.index(best) :] if best in known else []


def torch_release() -> str:
    """Return the release of PyTorch and its commit, which its builds for CPU and CUDA share."""
    return f"{torch.__version__.partition('+')[0]} ({str(torch.version.git_version)[:7]})"


def add(library: Path, folder: Path, instructions: str, sources: str) -> Path:
    """Copy a library for this PyTorch to where :func:`find` looks in a folder; return the copy.

    ``sources`` is a digest of what it was built from.
    """
    release = torch_release()
    copy = folder / f"torch{release.partition(' ')[0]}-{instructions}" / LIBRARY
    copy.parent.mkdir(parents=True, exist_ok=True)
    put(Path(shutil.copy(library, copy.with_name("copied"))), copy)
    manifest = json.dumps(asdict(Manifest(release, instructions, sources)), indent=2)
    copy.with_name(MANIFEST).write_text(f"{manifest}\n")
    return copy


def remove_outdated(folder: Path, sources: str) -> None:
    """Delete the libraries in a folder that were built from other sources."""
    for manifest in folder.glob(f"*/{MANIFEST}"):
        if f'"sources": "{sources}"' not in manifest.read_text():
            say(f"deleting {manifest.parent}, which was built from other sources")
            shutil.rmtree(manifest.parent)


def find(sources: str, folder: Path = FOLDER) -> tuple[Path | None, str]:
    """Return the library for this PyTorch, processor and digest of sources, loaded, or why not.

    The reason is empty where nothing came compiled, or IREVRNN_CXXFLAGS asks for another library.
    """
    if os.environ.get("IREVRNN_CXXFLAGS"):
        return None, ""
    try:
        found = {
            path.with_name(LIBRARY): Manifest(**json.loads(path.read_text()))
            for path in sorted(folder.glob(f"*/{MANIFEST}"))
        }
    except (TypeError, ValueError) as error:
        return None, f"a manifest in {folder} is damaged ({error})"
    if not found:
        return None, ""
    usable, release = usable_sets(), torch_release()
    for key, wanted, text in (
        ("torch", [release], f"are for PyTorch {{}}, and this is {release}"),
        ("instructions", usable, "are for processors with {}, which PyTorch does not use here"),
        ("sources", [sources], "were compiled from other sources"),
    ):
        values = dict.fromkeys(getattr(manifest, key) for manifest in found.values())
        found = {path: x for path, x in found.items() if getattr(x, key) in wanted}
        if not found:
            return None, f"those that came compiled {text.format(', '.join(values))}"
    library = min(found, key=lambda path: usable.index(found[path].instructions))
    if not is_intact(library):
        return None, f"{library}, which came compiled, is damaged"
    try:
        load_library(library)
    except OSError as error:  # such as one from a newer system
        return None, f"the one that came compiled does not load ({error})"
    return library, ""
