"""Keep built files, each with its digest, and let one process at a time build."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from irevrnn.jit.commands import PATIENCE, say

_SPACE = 50_000_000
_NO_CODE = getattr(os, "ST_NOEXEC", 0)  # macOS has none


def cached(
    key: str, name: str, build: Callable[[Path], Path], load: Callable[[Path], None] | None = None
) -> Path:
    """Return the file ``name`` in the folder ``key``, named after all that the file is made from.

    If the cache lacks it, ``build`` makes it in the private folder that it is given, and returns
    its path. A file that is there but for which ``load`` raises an OSError, such as another
    machine's, is made again, and stays until the new one replaces it. An OSError says that no
    folder can be written or locked.
    """
    path, there = locate(key, name, load)
    if there:
        return path
    with _locked(path.parent):
        error = _load_error(path, load)
        if error is not None:  # else it was built while this process waited
            if error:
                say(f"building again what does not load ({error})")
            for leftover in path.parent.glob("build-*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix="build-", dir=path.parent, ignore_cleanup_errors=True
            ) as work:
                put(build(Path(work)), path)
    return path


def _locked(folder: Path) -> AcquireReturnProxy:
    lock = FileLock(folder / "lock")  # it ends with its holder
    try:
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            say("waiting for another process that builds the kernels ...")
            return lock.acquire(timeout=PATIENCE)
    # No locks, as on NFS without its daemon (the type depends on the release of filelock), or no
    # lock within PATIENCE.
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{lock.lock_file} cannot be locked ({error}). End the process that holds it, or name "
            "another folder, on a local disk, in IREVRNN_CACHE"
        ) from error


def locate(key: str, name: str, load: Callable[[Path], None] | None = None) -> tuple[Path, bool]:
    """Return where a file is, or can be put, and whether it is there and can be loaded."""
    problems: list[str] = []
    for root in (_cache_root, _temporary_root):
        try:
            path = root() / key / name
            if _load_error(path, load) is None:  # a filled cache may well be read-only
                return path, True
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
            if load and os.statvfs(path.parent).f_flag & _NO_CODE:
                raise OSError(f"no code can be loaded from {path.parent} (noexec)")
            if shutil.disk_usage(path.parent).free < _SPACE:  # or the compiler would find out
                raise OSError(f"No space left on device for a build of 50 MB: {path.parent}")
        except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
            problems.append(str(error))
        else:
            if problems:
                say(f"no cache in the usual place ({problems[0]}): set IREVRNN_CACHE to keep one")
            return path, False
    raise OSError(f"no folder can be written ({'; '.join(problems)}). Name one in IREVRNN_CACHE")


def _load_error(path: Path, load: Callable[[Path], None] | None) -> str | None:
    """Return why a file does not load, "" if it is not there or damaged, None if it loads."""
    if not is_intact(path):
        return ""
    try:
        if load:
            load(path)
    except OSError as error:
        return str(error)
    return None


def cached_files(pattern: str) -> list[Path]:
    """Return the intact files that match a pattern, newest first."""
    found: list[Path] = []
    for root in (_cache_root, _temporary_root):
        with suppress(OSError, RuntimeError):
            found += root().glob(pattern)
    return sorted(filter(is_intact, found), key=lambda path: path.stat().st_mtime, reverse=True)


def is_intact(path: Path) -> bool:
    """Return whether a file is there and has the digest that :func:`put` wrote beside it.

    A library that was cut short must not be loaded: touching a missing page ends the process.
    """
    try:
        return _beside(path).read_bytes() == _digest_of(path)
    except OSError:
        return False


def put(built: Path, path: Path) -> None:
    """Move a file into the cache in one step, its digest first.

    A process that dies in between leaves a digest that does not fit: the file is built again.
    """
    _beside(built).write_bytes(_digest_of(built))
    os.replace(_beside(built), _beside(path))
    os.replace(built, path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).hexdigest().encode()


def digest(*parts: str | Path) -> str:
    """Return a digest of texts, and of files' names and contents."""
    known = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            known.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
        else:
            known.update(part.encode() + b"\0")
    return known.hexdigest()[:16]


def _cache_root() -> Path:
    if named := os.environ.get("IREVRNN_CACHE"):
        return Path(named).expanduser().absolute()
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return usual.expanduser().absolute() / "irevrnn"


def _temporary_root() -> Path:
    """Return a folder that this user alone can write: what others put there is not loaded."""
    root = Path(tempfile.gettempdir(), f"irevrnn-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others can write {root}")
    return root
