"""Published archives: fetched and verified, or taken from a folder, and converted.

The module of such a data set has ``ADDRESSES`` of a zip archive, in the order in which to try them;
``FILES``, the names of the files in it that are needed; ``convert(raw, out, note)``, which converts
the files in ``raw`` into the format of :mod:`experiments.datasets.recordings` in ``out``, with a
note behind the source; and ``difference(raw)``, which says how the files differ from the published
ones (None if they do not).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from experiments.datasets import DataError, as_data_error, data_root
from experiments.datasets.recordings import Recordings, open_recordings
from irevrnn.kernels.jit.compiler import say

#: Seconds to wait for an answer of a server.
TIMEOUT = 30
#: What a damaged archive raises, depending on where it is damaged.
OF_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def obtain(
    name: str, module: ModuleType, root: str | os.PathLike[str] | None, raw: Path | None
) -> Recordings:
    """Return the recordings in the folder ``name`` of ``root``.

    With ``raw`` they are converted from the files there, which may differ from the published ones.
    Otherwise they are fetched and converted, unless they are there already: where several
    processes call it at once, one fetches and the others wait. A download that broke off goes on.
    """
    out = data_root(root) / name
    if raw is not None:
        problem = module.difference(raw)
        if problem is not None:
            say(f"{name}: {problem}")
        return module.convert(raw, out, f"; {problem}" if problem else "")
    if not (out / "meta.json").is_file():
        with as_data_error(out):
            out.mkdir(parents=True, exist_ok=True)
            with FileLock(out / ".lock"):
                if not (out / "meta.json").is_file():
                    return _fetch(name, module, out)
    return open_recordings(out)


def fetched(name: str, address: str, root: str | os.PathLike[str] | None) -> Path:
    """Return a file in the folder ``name`` of ``root``, fetched if it is not there."""
    file = data_root(root) / name / address.rpartition("/")[2]
    if file.is_file():
        return file
    with as_data_error(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / ".lock"):
            if not file.is_file():
                say(f"{name}: fetching {address} into {file.parent}")
                try:
                    _download(address, file)
                except (DataError, OSError, http.client.HTTPException) as error:
                    raise DataError(
                        f"could not get {file.name} ({error}): run the same command again, or "
                        f"download {address} and put it into {file.parent}"
                    ) from error
    return file


def listing_sha256(contents: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 of the sorted lines ``name sha256`` of these names and contents."""
    lines = sorted(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in contents)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _fetch(name: str, module: ModuleType, out: Path) -> Recordings:
    """Convert the first archive that is as published."""
    problems = []
    archive = out / "archive.zip"
    for address in module.ADDRESSES:
        say(f"{name}: fetching {address} into {out}")
        try:
            _download(address, archive)
            recordings = _unpack_and_convert(module, archive, out)
        except (DataError, OSError, http.client.HTTPException) as error:
            problems.append(f"{address}: {error}")
            continue
        archive.unlink()
        return recordings
    raise DataError(
        f"could not get {name} ({'; '.join(problems)}). Run the same command again, or download "
        f"and unpack it, and run python -m experiments.datasets {name} --raw FOLDER"
    )


def _download(address: str, file: Path) -> None:
    """Fetch a file, beginning where an earlier attempt broke off if the server can."""
    part = file.with_name(f"{file.name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part")
    have = part.stat().st_size if part.exists() else 0
    request = Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            # A server that cannot begin in the middle sends the whole.
            resumed = getattr(response, "status", None) == http.client.PARTIAL_CONTENT
            sent = response.headers.get("Content-Length")
            size = None if sent is None else int(sent) + have * resumed
            with part.open("ab" if resumed else "wb") as target:
                bar = {"total": size, "initial": have * resumed, "desc": file.name}
                with tqdm.wrapattr(response, "read", disable=None, **bar) as stream:
                    shutil.copyfileobj(stream, target)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # not the beginning of the file that is there now
        raise
    if size is not None and part.stat().st_size != size:
        raise DataError(f"got {part.stat().st_size:,} of {size:,} bytes")
    os.replace(part, file)


def _unpack_and_convert(module: ModuleType, archive: Path, out: Path) -> Recordings:
    with tempfile.TemporaryDirectory(dir=out, prefix=".raw-") as raw:
        try:
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    if module.FILES.fullmatch(member.filename.rpartition("/")[2]):
                        packed.extract(member, raw)
            problem = module.difference(Path(raw))
        except OF_DAMAGE as error:
            problem = f"the archive is damaged: {error}"
        if problem is not None:
            archive.unlink()  # the next attempt fetches it anew
            raise DataError(problem)
        return module.convert(Path(raw), out, "")
