"""Where built libraries are kept, and the lock that lets one process at a time build."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_SPACE = 50_000_000


def cached_path(key: str, name: str) -> Path:
    """Return where the file ``name`` under ``key`` is, or can be put if it is not there yet.

    Raises:
        OSError: if no folder can be written, or none has space for a build.
    """
    problems: list[str] = []
    for root in (_cache_root, _temporary_root):
        try:
            path = root() / key / name
            if os.access(path, os.R_OK):  # a cache that is filled may well be read-only
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
            _check_space(path.parent)
        except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
            problems.append(str(error))
            continue
        if problems:
            say(f"no cache in the usual place ({problems[0]}): set IREVRNN_CACHE to keep one")
        return path
    raise OSError(f"no folder can be written ({'; '.join(problems)}). Name one in IREVRNN_CACHE")


def cached_files(pattern: str) -> list[Path]:
    """Return the files that are kept under this pattern, the newest first."""
    found: list[Path] = []
    with suppress(OSError, RuntimeError):
        found += _cache_root().glob(pattern)
    with suppress(OSError):
        if _temporary_name().exists():
            found += _temporary_root().glob(pattern)
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _check_space(folder: Path) -> None:
    """Find a full device before the compiler does, which takes its time and tells it worse."""
    if shutil.disk_usage(folder).free < _SPACE:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, a build takes 50 MB", folder)


def _cache_root() -> Path:
    named = os.environ.get("IREVRNN_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irevrnn"


def _temporary_name() -> Path:
    return Path(tempfile.gettempdir()) / f"irevrnn-{os.getuid()}"


def _temporary_root() -> Path:
    """Return a folder of this user's alone: code that others could write must not be loaded."""
    root = _temporary_name()
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others can write {root}")
    return root


@contextmanager
def one_process(lock: Path, patience: float) -> Iterator[None]:
    """Let one process at a time pass. The kernel frees the lock when its holder dies.

    Args:
        lock: a file of its own.
        patience: seconds to wait for a holder that lives but does not come to an end.

    Raises:
        OSError: the wait was in vain, or the file system has no locks.
    """
    with open(lock, "w") as file:
        if not _taken(file):
            say("waiting for another process that builds the kernels ...")
            deadline = time.monotonic() + patience
            while not _taken(file):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"another process has saved {lock} for {patience:.0f} s. End it, or name "
                        "another folder in IREVRNN_CACHE"
                    )
                time.sleep(0.1)
        yield


def _taken(file: IO[str]) -> bool:
    """Take the lock, unless another process has it."""
    import fcntl  # Windows has none

    try:
        # lockf rather than flock: a child that is forked meanwhile does not hold the lock too.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # such as NFS without its lock daemon
        raise OSError(
            f"{file.name} cannot be locked ({error}). Name a local folder in IREVRNN_CACHE"
        ) from error
    return True


def say(message: str) -> None:
    """Print one line of progress where it does not mix with a program's output."""
    print(f"irevrnn: {message}", file=sys.stderr, flush=True)
