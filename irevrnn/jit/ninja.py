"""Runs ninja in a private folder and moves what it built into the cache in one step."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from irevrnn.jit.cache import one_process, say
from irevrnn.jit.compiler import BuildError

_LINES_SHOWN = 15
#: Seconds after which a build counts as hanging, and a process gives up waiting for another's.
PATIENCE = 1800


@dataclass(frozen=True)
class Recipe:
    """How a library is built.

    Attributes:
        what: it contains, as messages name it.
        compiler: whose fault a failure is, as messages name it.
        way_out: what helps against a failure.
        rules: the text of ``build.ninja``, whose only final target has the library's name.
        seconds: it takes, about.
    """

    what: str
    compiler: str
    way_out: str
    rules: str
    seconds: int


def build_once(library: Path, recipe: Callable[[], Recipe]) -> Path:
    """Return ``library``, building it first if it is not there; one process builds at a time.

    Raises:
        BuildError: if it cannot be built.
        OSError: if it cannot be kept.
    """
    if not library.exists():
        with one_process(library.with_name("lock"), PATIENCE):
            if not library.exists():  # else it was built while this process waited
                _build(recipe(), library)
    return library


def _build(recipe: Recipe, library: Path) -> None:
    ninja = ninja_command()
    started = time.monotonic()
    say(f"building {recipe.what} (about {recipe.seconds} s, once) ...")
    for leftover in library.parent.glob("build-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as work:
        Path(work, "build.ninja").write_text(recipe.rules)
        returncode, output = run(ninja, work)
        if returncode != 0:
            raise BuildError(
                f"{recipe.compiler} failed. {recipe.way_out}, MAX_JOBS=1 takes less memory. The "
                f"last lines of its output:\n{last_lines(output)}"
            )
        _try_out(recipe, Path(work, library.name))
        os.replace(Path(work, library.name), library)
    say(f"built {recipe.what} in {time.monotonic() - started:.0f} s")


def run(command: list[str], folder: str | Path) -> tuple[int, str]:
    """Run a command to its end; its exit status and what it printed."""
    # What is loaded into Python beforehand, such as a sanitizer's runtime, is not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except BaseException as error:  # also Ctrl-C: the compilers that it started end with it
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BuildError(f"the build did not end within {PATIENCE} s") from None
        raise
    return process.returncode, output


def last_lines(output: str) -> str:
    """As much of a compiler's output as a message shows."""
    return "\n".join(output.splitlines()[-_LINES_SHOWN:])


def _try_out(recipe: Recipe, library: Path) -> None:
    """Load the library before it gets into the cache, where a broken one would stay."""
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(
            f"{recipe.compiler} made a library that does not load ({error}). {recipe.way_out}"
        ) from error


def ninja_command() -> list[str]:
    """How ninja is called.

    Raises:
        BuildError: it is missing.
    """
    jobs = os.environ.get("MAX_JOBS")
    options = ["-j", jobs] if jobs else []
    if importlib.util.find_spec("ninja"):
        return [sys.executable, "-m", "ninja", *options]
    if shutil.which("ninja"):
        return ["ninja", *options]
    raise BuildError("ninja is missing. 'pip install ninja' brings it")


def torch_paths() -> tuple[list[str], list[str]]:
    """Folders of PyTorch's headers and of its libraries.

    Raises:
        BuildError: PyTorch cannot tell for want of setuptools.
    """
    try:  # only a build pays for this import
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as error:
        raise BuildError(f"{error}. 'pip install setuptools' brings what is missing") from error
    return include_paths(), library_paths()


def link_options(folders: Iterable[str], libraries: Iterable[str]) -> list[str]:
    """Options that link libraries and find them again when the result is loaded."""
    found = [flag for path in folders for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    return [*found, *(f"-l{name}" for name in libraries)]


def rule(name: str, *words: str, tail: Iterable[str] = ()) -> str:
    """A rule whose command is ``words``, ``$in -o $out`` and ``tail``."""
    return f"rule {name}\n  command = {_shell(words)} $in -o $out {_shell(tail)}".rstrip()


def edge(target: str, rule_name: str, *inputs: str) -> str:
    """A build statement."""
    return f"build {_path(target)}: {rule_name} {' '.join(map(_path, inputs))}"


def _shell(words: Iterable[str]) -> str:
    return shlex.join(words).replace("$", "$$")


def _path(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
