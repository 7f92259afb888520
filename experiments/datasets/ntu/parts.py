"""What a conversion has finished: read once, kept on disk, found by the next one.

A part is a file with the actors of some recordings, and what is wrong with others. It is written
whole or not at all, so a conversion that is killed loses what it was at, and no more. What is in a
part counts for as long as its source file keeps size and time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.ntu.sources import Source, Stamp
from experiments.datasets.recordings import Rejected, open_recordings
from experiments.files import replacing, write_text

#: Changes when a source file would be read to another result than before.
VERSION = 1
FOLDER = ".parts"
_SOURCES = "sources.json"


@dataclass
class Part:
    """What came of some source files.

    Attributes:
        names: of the recordings.
        stamps: size and time of their sources.
        frames: (length, 2, 25, 3) float32 each.
        rejected: files that are no recording, with their size and time.
    """

    names: list[str] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    rejected: list[tuple[Rejected, Stamp]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        meta = {
            "version": VERSION,
            "names": self.names,
            "stamps": self.stamps,
            "rejected": _rejected_to_json(self.rejected),
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                meta=np.array(json.dumps(meta)),
                offsets=np.cumsum([0, *map(len, self.frames)], dtype=np.int64),
                frames=np.concatenate(self.frames) if self.frames else np.empty(0, np.float32),
            )


class Ledger:
    """All that is finished, in the parts and in the output of an earlier conversion."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        # Of this conversion alone: the parts of the next one may have the same paths.
        self._load = lru_cache(maxsize=8)(_frames_of_part)
        self._recordings: dict[str, tuple[Stamp, Callable[[], np.ndarray]]] = {}
        self._rejected: dict[str, tuple[Stamp, Rejected]] = {}
        self._add_output(out)
        self._number = 0
        for path in sorted(self.folder.glob("part-*.npz")):
            self.add_part(path)

    def next_part(self) -> Path:
        """A path for another part."""
        self._number += 1
        return self.folder / f"part-{self._number:06d}.npz"

    def add_part(self, path: Path) -> None:
        """Take in a part; one that is damaged, or of another version, counts for nothing."""
        self._number = max(self._number, int(path.stem.partition("-")[2]))
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                offsets = file["offsets"].tolist()
                if meta["version"] != VERSION:
                    return
        except Exception:  # whatever is wrong with it: its files are read again
            return
        for i, (name, stamp) in enumerate(zip(meta["names"], meta["stamps"], strict=True)):
            self._add(name, stamp, partial(self._slice, path, offsets[i], offsets[i + 1]))
        self._add_rejected(meta["rejected"])

    def frames_of(self, source: Source) -> Callable[[], np.ndarray] | None:
        """What gets the frames of a file that was read before and has not changed."""
        stamp, frames = self._recordings.get(source.name, (None, None))
        return frames if stamp == source.stamp else None

    def rejection_of(self, source: Source) -> Rejected | None:
        """Why a file that was read before, and has not changed, is no recording."""
        stamp, rejected = self._rejected.get(source.name, (None, None))
        return rejected if stamp == source.stamp else None

    def knows(self, source: Source) -> bool:
        """Whether a file need not be read."""
        return self.frames_of(source) is not None or self.rejection_of(source) is not None

    def _add_output(self, out: Path) -> None:
        try:
            sources = json.loads((out / _SOURCES).read_text(encoding="utf-8"))
            recordings = open_recordings(out)
            names = list(sources["stamps"])
            if sources["version"] != VERSION or names != recordings.names.tolist():
                return
        except (OSError, ValueError, KeyError, TypeError, DataError):
            return
        for index, (name, stamp) in enumerate(sources["stamps"].items()):
            self._add(name, stamp, partial(recordings.__getitem__, index))
        self._add_rejected(sources["rejected"])

    def _slice(self, path: Path, begin: int, end: int) -> np.ndarray:
        return self._load(path)[begin:end]

    def _add(self, name: str, stamp: Sequence[int], frames: Callable[[], np.ndarray]) -> None:
        self._rejected.pop(name, None)
        self._recordings[name] = (stamp[0], stamp[1]), frames

    def _add_rejected(self, entries: Iterable[dict[str, Any]]) -> None:
        for entry in entries:
            rejected = Rejected(*(entry[key] for key in _REJECTED))
            name = Path(rejected.file).stem
            self._recordings.pop(name, None)
            self._rejected[name] = (entry["size"], entry["mtime"]), rejected


def save_sources(
    out: Path,
    stamps: dict[str, Stamp],
    rejected: Iterable[tuple[Rejected, Stamp]],
) -> None:
    """Note beside an output from which files it was made."""
    content = {"version": VERSION, "stamps": stamps, "rejected": _rejected_to_json(rejected)}
    write_text(out / _SOURCES, json.dumps(content) + "\n")


_REJECTED = ("file", "reason", "line")


def _rejected_to_json(
    rejected: Iterable[tuple[Rejected, Stamp]],
) -> list[dict[str, Any]]:
    return [
        {"size": stamp[0], "mtime": stamp[1], **{key: getattr(one, key) for key in _REJECTED}}
        for one, stamp in rejected
    ]


def _frames_of_part(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["frames"]
