"""Builds the C++ operators on first use and registers them with PyTorch.

Nothing happens at import. The first call of :func:`load` looks for the library in a cache, in a
folder named after all that goes into it (PyTorch, compiler, processor, flags, sources), builds it
there with ninja if it is missing, and loads it. ``python -m irevrnn.jit`` builds it ahead of
time and prints where it is; with ``--cuda``, the CUDA operators too (``irevrnn/jit/cuda.py``).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from irevrnn.jit import ninja
from irevrnn.jit.cache import cached_path
from irevrnn.jit.compiler import BuildError, Compiler, find_compiler
from irevrnn.jit.once_per_process import OncePerProcess

SOURCES = Path(__file__).parents[1] / "csrc"
LIBRARY = "irevrnn_ops.so"

_SECONDS_PER_SOURCE = 11


def load() -> bool:
    """Register the operators, building them first where the cache has none.

    Returns:
        False, after one warning per process, where they cannot be built.
    """
    return _load_once()


def _load(sources: Path) -> bool:
    try:
        library = build(sources)
        try:
            torch.ops.load_library(library)
        except OSError:  # damaged since it was built, or its cache came from another machine
            library.unlink(missing_ok=True)
            torch.ops.load_library(build(sources))
    except (BuildError, OSError) as error:
        warnings.warn(
            f"irevrnn runs its slow PyTorch reference, for want of the C++ kernels: {error}",
            RuntimeWarning,
            stacklevel=5,
        )
        return False
    return True


_load_once = OncePerProcess(lambda: _load(SOURCES))


def build(sources: Path) -> Path:
    """Return the library of the C++ files in ``sources``, building it if the cache lacks it.

    Raises:
        BuildError: if it cannot be built.
        OSError: if it cannot be kept anywhere.
    """
    return build_extension(Path(LIBRARY).stem, sorted(sources.glob("*.cpp")))


def build_extension(name: str, sources: Sequence[Path]) -> Path:
    """Return a library of C++ files, building it with the kernels' compiler and flags if need be.

    Headers are looked for in the sources' own folders and in :data:`SOURCES`. The caller loads it,
    with ``torch.ops.load_library`` for one.

    Args:
        name: of the library, without its suffix.
        sources: the files that are compiled.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be kept anywhere.
    """
    if sys.platform == "win32":
        raise BuildError("they are not built on Windows. Use WSL, the Linux inside Windows")
    compiler = find_compiler()
    library = cached_path(_key(compiler, sources), f"{name}.so")
    return ninja.build_once(library, lambda: _recipe(compiler, name, sources))


def _key(compiler: Compiler, sources: Sequence[Path]) -> str:
    """Name all that goes into the library: what is built from anything else is another one."""
    texts = (torch_build(), compiler.identity, *compiler.flags, *compiler.link_flags)
    headers = {
        header for file in (SOURCES / "ops.cpp", *sources) for header in file.parent.glob("*.h")
    }
    return digest(texts, [*sources, *headers])


def torch_build() -> str:
    """What tells this build of PyTorch from another, whose headers may differ."""
    return f"{torch.__version__} {torch.version.git_version}"


def digest(texts: tuple[str, ...], files: list[Path]) -> str:
    """A short name for texts and the names and contents of files."""
    known = hashlib.sha256()
    for text in texts:
        known.update(text.encode() + b"\0")
    for file in sorted(files):
        known.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return known.hexdigest()[:16]


def _recipe(compiler: Compiler, name: str, files: Sequence[Path]) -> ninja.Recipe:
    return ninja.Recipe(
        what="the C++ kernels" if f"{name}.so" == LIBRARY else name,
        compiler=shlex.join(compiler.command),
        way_out="CXX names another compiler",
        rules=_rules(compiler, name, files),
        seconds=_SECONDS_PER_SOURCE * -(-len(files) // (os.cpu_count() or 1)),
    )


def _rules(compiler: Compiler, name: str, files: Sequence[Path]) -> str:
    includes, folders = ninja.torch_paths()
    options = [*compiler.flags, f"-I{SOURCES}", *(f"-isystem{path}" for path in includes), "-c"]
    libraries = ninja.link_options(folders, ["torch", "torch_cpu", "c10"])
    objects = {f"{file.stem}.o": str(file) for file in files}
    return "\n".join(
        [
            ninja.rule("compile", *compiler.command, *options),
            ninja.rule(
                "link", *compiler.command, "-shared", tail=[*compiler.link_flags, *libraries]
            ),
            *(ninja.edge(target, "compile", file) for target, file in objects.items()),
            ninja.edge(f"{name}.so", "link", *objects),
            "",
        ]
    )
