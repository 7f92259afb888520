"""Which files there are to convert."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.datasets import DataError
from experiments.datasets.ntu.names import SUFFIX, parse_name
from experiments.datasets.recordings import Rejected

#: Size and time of a file: what is known of it holds while they stay.
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Source:
    """A file to convert, as it was when the folder was listed.

    Attributes:
        path: where it is.
        size: bytes.
        mtime: time of its last change, in nanoseconds.
    """

    path: Path
    size: int
    mtime: int

    @property
    def name(self) -> str:
        """The name of the recording."""
        return self.path.stem

    @property
    def stamp(self) -> Stamp:
        """Size and time."""
        return self.size, self.mtime


def find_sources(raw: Path) -> tuple[list[Source], list[Rejected]]:
    """List the .skeleton files in a folder, at any depth, in the order of their names.

    Returns:
        The files whose names are those of recordings, each name once; and files and folders that
        are not taken, with the reason.

    Raises:
        DataError: there is no such folder.
    """
    if not raw.is_dir():
        raise DataError(f"raw must be the folder of the .skeleton files; {raw} is no folder")
    rejected: list[Rejected] = []
    found: dict[str, Source] = {}
    for path in sorted(_skeleton_files(raw, rejected), key=lambda path: (path.name, path)):
        name = path.name[: -len(SUFFIX)]
        try:
            parse_name(name)
            if name in found:
                raise ValueError(
                    f"in {_place(path.parent, raw)}: there is another file of this name, in "
                    f"{_place(found[name].path.parent, raw)}, which is taken"
                )
            if not path.is_file():
                raise ValueError("it is no regular file")
            status = path.stat()
            found[name] = Source(path, status.st_size, status.st_mtime_ns)
        except ValueError as error:
            rejected.append(Rejected(_printable(path.name), str(error)))
        except OSError as error:
            rejected.append(Rejected(path.name, f"the file cannot be read: {error.strerror}"))
    return list(found.values()), rejected


def _skeleton_files(raw: Path, rejected: list[Rejected]) -> Iterator[Path]:
    def cannot_list(error: OSError) -> None:
        folder = _place(Path(error.filename), raw)
        rejected.append(Rejected(folder, f"the folder cannot be read: {error.strerror}"))

    for folder, folders, files in os.walk(raw, onerror=cannot_list):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):  # may lead round in a circle
                rejected.append(
                    Rejected(_printable(name), "a link to a folder, which is not followed")
                )
        yield from (Path(folder, file) for file in files if file.endswith(SUFFIX))


def _place(folder: Path, raw: Path) -> str:
    return _printable(f"{folder.relative_to(raw)}{os.sep}")


def _printable(name: str) -> str:
    """A file's name, which may be any bytes, as text that can be stored and shown on one line."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else ascii(shown)[1:-1]
