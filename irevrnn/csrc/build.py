"""Builds the C++ operators on first use and registers them with PyTorch.

Nothing happens at import. The first call of :func:`load` looks for the library in a cache, in a
folder named after all that goes into it (PyTorch, compiler, processor, flags, sources), builds it
there with ninja if it is missing, and loads it. ``python -m irevrnn.csrc.build`` builds it ahead of
time and prints where it is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from irevrnn.csrc.cache import cached_path, one_process, say
from irevrnn.csrc.compiler import BuildError, Compiler, find_compiler

SOURCES = Path(__file__).parent
LIBRARY = "irevrnn_ops.so"

_SECONDS_PER_SOURCE = 6
_LINES_SHOWN = 15
#: Seconds after which a build counts as hanging, and a process gives up waiting for another's.
PATIENCE = 1800

_lock = threading.Lock()
_loaded: bool | None = None


def load() -> bool:
    """Register the operators, building them first where the cache has none.

    Returns:
        False, after one warning per process, where they cannot be built.
    """
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = _load(SOURCES)
    return _loaded


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
            stacklevel=3,
        )
        return False
    return True


def _renew_lock() -> None:
    """Free a forked child's lock: the thread that may have held it is not there."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


def build(sources: Path) -> Path:
    """Return the library of the C++ files in ``sources``, building it if the cache lacks it.

    Raises:
        BuildError: if it cannot be built.
        OSError: if it cannot be kept anywhere.
    """
    if sys.platform == "win32":
        raise BuildError("they are not built on Windows. Use WSL, the Linux inside Windows")
    compiler = find_compiler()
    library = cached_path(_key(compiler, sources), LIBRARY)
    if not library.exists():
        with one_process(library.with_name("lock"), PATIENCE):
            if not library.exists():  # else it was built while this process waited
                _compile(compiler, sources, library)
    return library


def _key(compiler: Compiler, sources: Path) -> str:
    """Name all that goes into the library: what is built from anything else is another one."""
    digest = hashlib.sha256()
    torch_build = f"{torch.__version__} {torch.version.git_version}"
    for text in (torch_build, compiler.identity, *compiler.flags, *compiler.link_flags):
        digest.update(text.encode() + b"\0")
    for file in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(compiler: Compiler, sources: Path, library: Path) -> None:
    """Build in a private folder and move the finished library into place in one step."""
    ninja = _ninja_command()
    files = sorted(sources.glob("*.cpp"))
    started = time.monotonic()
    say(f"building the C++ kernels (about {_expected_seconds(files)} s, once) ...")
    for leftover in library.parent.glob("build-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as work:
        Path(work, "build.ninja").write_text(_ninja_file(compiler, files))
        returncode, output = _run(ninja, work)
        if returncode != 0:
            output = "\n".join(output.splitlines()[-_LINES_SHOWN:])
            raise BuildError(
                f"{shlex.join(compiler.command)} failed. CXX names another compiler, MAX_JOBS=1 "
                f"takes less memory. The last lines of its output:\n{output}"
            )
        _try_out(compiler, Path(work, LIBRARY))
        os.replace(Path(work, LIBRARY), library)
    say(f"built the C++ kernels in {time.monotonic() - started:.0f} s")


def _run(command: list[str], folder: str) -> tuple[int, str]:
    """Run a command to its end; its exit status and what it printed."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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


def _try_out(compiler: Compiler, library: Path) -> None:
    """Load the library before it gets into the cache, where a broken one would stay."""
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(
            f"{shlex.join(compiler.command)} made a library that does not load ({error}). CXX "
            "names another compiler"
        ) from error


def _ninja_command() -> list[str]:
    jobs = os.environ.get("MAX_JOBS")
    options = ["-j", jobs] if jobs else []
    if importlib.util.find_spec("ninja"):
        return [sys.executable, "-m", "ninja", *options]
    if shutil.which("ninja"):
        return ["ninja", *options]
    raise BuildError("ninja is missing. 'pip install ninja' brings it")


def _ninja_file(compiler: Compiler, files: list[Path]) -> str:
    try:  # only a build pays for this import
        from torch.utils.cpp_extension import include_paths, library_paths
    except ImportError as error:
        raise BuildError(f"{error}. 'pip install setuptools' brings what is missing") from error

    command = _shell(compiler.command)
    includes = [f"-isystem{path}" for path in include_paths()]
    folders = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    libraries = [*folders, "-ltorch", "-ltorch_cpu", "-lc10"]
    objects = [_ninja_path(f"{file.stem}.o") for file in files]
    return "\n".join(
        [
            "rule compile",
            f"  command = {command} {_shell([*compiler.flags, *includes])} -c $in -o $out",
            "rule link",
            f"  command = {command} -shared $in -o $out "
            f"{_shell([*compiler.link_flags, *libraries])}",
            *(
                f"build {target}: compile {_ninja_path(str(file))}"
                for target, file in zip(objects, files, strict=True)
            ),
            f"build {LIBRARY}: link {' '.join(objects)}",
            "",
        ]
    )


def _shell(words: Iterable[str]) -> str:
    return shlex.join(words).replace("$", "$$")


def _ninja_path(path: str) -> str:
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _expected_seconds(files: list[Path]) -> int:
    return _SECONDS_PER_SOURCE * -(-len(files) // (os.cpu_count() or 1))


def main() -> None:
    """Build ahead of time and print the library's path."""
    argparse.ArgumentParser(
        prog="python -m irevrnn.csrc.build",
        description="Build the C++ operators ahead of time and print where the library is.",
    ).parse_args()
    try:
        print(build(SOURCES))
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: the C++ kernels cannot be built: {error}")


if __name__ == "__main__":
    main()
