"""The authors' files in the folder RAW of a conversion."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.datasets import DataError

#: Records a file's name and the reason why it is left out.
Reject = Callable[[str, str], None]


def raw_files(raw: Path, pattern: re.Pattern[str], reject: Reject) -> Iterator[Path]:
    """Yield the files at any depth in ``raw`` whose names match ``pattern``, ordered by name.

    Of several files of one name, the one in the highest folder is taken. The others are rejected,
    as are folders that cannot be read, links to folders, and what is no regular file.
    """
    if not raw.is_dir():
        raise DataError(f"raw must be the folder of the authors' files; {raw} is no folder")

    def place(folder: Path) -> str:
        return printable(f"{folder.relative_to(raw)}{os.sep}")

    def cannot_list(error: OSError) -> None:
        reject(place(Path(error.filename)), f"the folder cannot be read: {error.strerror}")

    paths = []
    for folder, folders, files in os.walk(raw, onerror=cannot_list):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):  # may lead in a circle
                reject(printable(name), "a link to a folder, which is not followed")
        paths += [Path(folder, file) for file in files if pattern.fullmatch(file)]
    taken = Path()
    for path in sorted(paths, key=lambda path: (path.name, len(path.parts), path)):
        if path.name == taken.name:
            there = f"there is another file of this name, in {place(taken.parent)}, which is taken"
            reject(printable(path.name), f"in {place(path.parent)}: {there}")
        elif not path.is_file():
            reject(printable(path.name), "it is no regular file")
        else:
            yield (taken := path)


def raw_contents(
    raw: Path, pattern: re.Pattern[str], reject: Reject
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the :func:`raw_files`; those that cannot be read are rejected."""
    for path in raw_files(raw, pattern, reject):
        try:
            yield path.name, path.read_bytes()
        except OSError as error:
            reject(printable(path.name), f"the file cannot be read: {error.strerror}")


def printable(name: str) -> str:
    """Return a file's name, which may hold any bytes, as text that fits on one line."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else ascii(shown)[1:-1]
