"""The authors' files in the folder RAW of a conversion."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.datasets import DataError

#: Records a file's name and the reason why it is left out.
Reject = Callable[[str, str], None]


def raw_files(raw: Path, pattern: re.Pattern[str], reject: Reject) -> Iterator[Path]:
    """Yield the files under ``raw`` whose names match ``pattern``, ordered by name.

    Each name is yielded once. Further files of the same name, what is no regular file, folders that
    cannot be read and links to folders are rejected.

    Raises:
        DataError: if ``raw`` is no folder.
    """
    if not raw.is_dir():
        raise DataError(f"raw must be the folder of the authors' files; {raw} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(_walk(raw, pattern, reject), key=lambda path: (path.name, path)):
        if path.name in found:
            here, there = (_place(one.parent, raw) for one in (path, found[path.name]))
            reason = f"in {here}: there is another file of this name, in {there}, which is taken"
            reject(printable(path.name), reason)
        elif not path.is_file():
            reject(printable(path.name), "it is no regular file")
        else:
            found[path.name] = path
    yield from found.values()


def _walk(raw: Path, pattern: re.Pattern[str], reject: Reject) -> Iterator[Path]:
    def cannot_list(error: OSError) -> None:
        reject(_place(Path(error.filename), raw), f"the folder cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(raw, onerror=cannot_list):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):  # may lead in a circle
                reject(printable(name), "a link to a folder, which is not followed")
        yield from (Path(folder, file) for file in files if pattern.fullmatch(file))


def _place(folder: Path, raw: Path) -> str:
    return printable(f"{folder.relative_to(raw)}{os.sep}")


def printable(name: str) -> str:
    """Return a file's name, which may hold any bytes, as text that fits on one line."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else ascii(shown)[1:-1]
