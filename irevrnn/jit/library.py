"""Compile and link a shared library for PyTorch.

One command for each file needs no ninja. ``torch.utils.cpp_extension.load`` was tried: it takes no
folder with a ``$`` or ``:`` in its name and no compiler of two words (``ccache g++``), shows
nothing until the end, waits without end for the lock of a killed process, and what it started goes
on when Python is killed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from irevrnn.jit.commands import BuildError, jobs, run, say


def make_library(
    library: Path,
    contents: str,
    failure: str,
    compilations: Mapping[Path, Sequence[str]],
    linking: Sequence[str],
    options: Sequence[str],
) -> Path:
    """Compile sources, link them, and see that the result loads.

    Args:
        library: its path, in a folder of its own.
        contents: what messages call it.
        failure: how the message begins when a compiler fails.
        compilations: for each source, the words that compile it.
        linking, options: the words before and behind the objects' names.
    """
    started = time.monotonic()
    say(f"building {contents}, once, with MAX_JOBS={jobs()} ...")
    commands = {
        f"{file.parent.name}/{file.name}": [*words, "-c", str(file.absolute()), "-o", f"{i}.o"]
        for i, (file, words) in enumerate(compilations.items())
    }
    dict(run(commands, library.parent, failure))
    objects = [words[-1] for words in commands.values()]
    link = [*linking, *objects, "-o", library.name, *options]
    dict(run({library.name: link}, library.parent, failure))
    try:  # before it gets into the cache, where a broken one would stay
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(f"{failure}. {library.name} does not load ({error})") from error
    say(f"built {contents} in {time.monotonic() - started:.0f} s")
    return library


def with_headers(sources: Iterable[Path], *folders: Path) -> list[Path]:
    """Return sources and the headers of ours that they include, directly or not."""
    found = list(sources)
    for source in found:  # it grows meanwhile
        for name in re.findall(r'^\s*#\s*include "(.+)"', source.read_text(), re.MULTILINE):
            places = (folder / name for folder in (source.parent, *folders))
            header = next((place for place in places if place.is_file()), None)
            if header and header not in found:
                found.append(header)
    return found


def torch_build() -> str:
    """Return what tells this build of PyTorch from another, whose headers may differ."""
    return f"{torch.__version__} {torch.version.git_version}"


def torch_options(*libraries: str) -> tuple[list[str], list[str]]:
    """Return options that find PyTorch's headers, and link its libraries, also when loaded."""
    try:  # only a build should pay for this import
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as error:
        raise BuildError(f"{error}. 'pip install setuptools' brings what is missing") from error
    folders = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    includes = [f"-isystem{path}" for path in include_paths()]
    return includes, [*folders, *(f"-l{name}" for name in libraries)]
