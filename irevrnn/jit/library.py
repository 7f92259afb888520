"""Compile and link a shared library for PyTorch.

One command for each file needs no ninja. ``torch.utils.cpp_extension.load`` would write its rules,
and was tried: it takes no folder with a ``$`` or ``:`` in its name and no compiler of two words
(``ccache g++``), shows nothing until the end, waits without end for the lock of a killed process,
and what it started goes on when Python is killed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from irevrnn.jit import commands
from irevrnn.jit.commands import BuildError
from irevrnn.jit.messages import say


def make_library(
    library: Path,
    contents: str,
    failure: str,
    compilations: Mapping[Path, Sequence[str]],
    linking: Sequence[str],
    options: Sequence[str],
) -> Path:
    """Compile sources and link them; say how far it is.

    Args:
        library: its path, in a folder of its own.
        contents: what messages call it.
        failure: how the message begins when a compiler fails.
        compilations: for each source, the words that compile it.
        linking, options: the words before and behind the objects' names.
    """
    started, count = time.monotonic(), len(compilations)
    say(f"building {contents}, once: {count} files, {commands.jobs()} at a time ...")
    objects = {f"{index}-{file.name}.o": file for index, file in enumerate(compilations)}
    done: list[str] = []

    def ended(target: str, status: int, output: str) -> None:
        if status != 0:
            raise BuildError(
                f"{failure}, MAX_JOBS=1 takes less memory. The last lines of its output:\n"
                f"{commands.last_lines(output)}"
            )
        done.append(target)
        if target in objects:
            say(f"[{len(done)}/{count}] {objects[target].name}")

    compile_all = {
        target: [*compilations[file], "-c", str(file.absolute()), "-o", target]
        for target, file in objects.items()
    }
    commands.run(compile_all, library.parent, ended)
    link = [*linking, *objects, "-o", library.name, *options]
    commands.run({library.name: link}, library.parent, ended)
    try:  # before it gets into the cache, where a broken one would stay
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(f"{failure}: it made a library that does not load ({error})") from error
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


def torch_includes() -> list[str]:
    """Return options that name the folders of PyTorch's headers."""
    return [f"-isystem{path}" for path in _torch_folders()[0]]


def link_options(*libraries: str) -> list[str]:
    """Return options that link libraries of PyTorch, found again when the result is loaded."""
    folders = [flag for path in _torch_folders()[1] for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    return [*folders, *(f"-l{name}" for name in libraries)]


def _torch_folders() -> tuple[list[str], list[str]]:
    try:  # only a build should pay for this import
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as error:
        raise BuildError(f"{error}. 'pip install setuptools' brings what is missing") from error
    return include_paths(), library_paths()
