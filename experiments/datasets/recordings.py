"""Recordings of movements: one format on disk and one object in memory for all data sets.

A converted data set is a folder with three files:

    frames.npy  float32, the frames of all recordings, concatenated: (F, bodies, joints, 3) in
                metres for skeletons (an absent body is all 0), (F, channels) for signals.
                Memory-mapped, so that a data set may be larger than memory.
    index.npz   offsets (N + 1,): recording i has the frames offsets[i] to offsets[i + 1];
                labels (N,) from 0, subjects (N,), unique names (N,), further int64 columns (N,).
    meta.json   a description, the source, and the rejected files.

meta.json is written last: without it, a conversion has not finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from experiments.datasets import DataError, as_data_error, data_root
from experiments.files import replacing, write_text

#: Increased when folders written before can no longer be read.
VERSION = 1
KINDS = ("skeleton", "signal")
_ARRAYS = ("offsets", "labels", "subjects", "names")


@dataclass(frozen=True)
class Rejected:
    """A file, or the part of it at ``line`` (from 1), that was left out, and why."""

    file: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.reason}"


class SkeletonError(DataError):
    """A file, or the part of it at ``line`` (from 1), that cannot be read, and why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class Description:
    """The meaning of a data set's numbers, as stored in meta.json.

    Attributes:
        data_set: the name used in results.
        kind: one of ``KINDS``.
        frame_rate: frames per second.
        source: where the recordings come from, without local folders.
        joint_names: a name for each joint, in lower case with underscores, sides last
            (``hip_left``); for signals, the names of the channels.
        bones: (parent, child) indices of joints, which form a tree; empty for signals.
    """

    data_set: str
    kind: str
    class_names: Sequence[str]
    frame_rate: float
    source: str
    joint_names: Sequence[str]
    bones: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        _check(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        last = len(self.joint_names) - 1
        outside = [bone for bone in self.bones if not 0 <= min(bone) <= max(bone) <= last]
        _check(not outside, f"bones must connect joints 0 to {last}; got {outside}")

    @property
    def root(self) -> int:
        """Return the joint that is no bone's child."""
        [root] = {parent for parent, _ in self.bones} - {child for _, child in self.bones}
        return root


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings of different lengths; ``recordings[i]`` returns the frames of one.

    The arrays are those of the files described above; ``columns`` holds the further ones by name.
    """

    about: Description
    frames: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    names: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    rejected: Sequence[Rejected] = ()

    def __post_init__(self) -> None:
        shape, ends, count = self.frames.shape, self.offsets, len(self.labels)
        last = (len(self.about.joint_names), 3)[: 2 if self.about.kind == "skeleton" else 1]
        dimensions = 2 * len(last)
        _check(
            len(shape) == dimensions and shape[-len(last) :] == last,
            f"frames must have {dimensions} dimensions, the last of them {last}; got shape {shape}",
        )
        _check(self.frames.dtype == np.float32, f"frames must be float32; got {self.frames.dtype}")
        arrays = {"labels": self.labels, "subjects": self.subjects, "names": self.names}
        for name, array in {**arrays, **self.columns}.items():
            _check(
                array.shape == (count,) and (name == "names" or array.dtype == np.int64),
                f"{name} must be int64 of shape ({count},); got {array.dtype} {array.shape}",
            )
        _check(
            ends.shape == (count + 1,) and (ends[0], ends[-1]) == (0, len(self.frames)),
            f"offsets must be {count + 1} numbers from 0 to the {len(self.frames)} frames; "
            f"got {len(ends)} from {ends[:1]} to {ends[-1:]}",
        )
        _check((np.diff(ends) > 0).all(), "offsets must increase by at least one frame")
        classes = len(self.about.class_names)
        wrong = self.labels[(self.labels < 0) | (self.labels >= classes)]
        _check(not len(wrong), f"labels must be from 0 to {classes - 1}; got {wrong[:1]}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a view of the frames of one recording, (length, ...)."""
        return self.frames[self.offsets[index] : self.offsets[index + 1]]

    @property
    def digest(self) -> str:
        """Return a hash of names, labels, subjects and lengths, to tell whether they changed."""
        arrays = (self.offsets, self.labels, self.subjects)
        content = "\0".join(self.names).encode() + b"".join(one.tobytes() for one in arrays)
        return hashlib.sha256(content).hexdigest()[:16]

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of frames of each recording, (N,)."""
        return np.diff(self.offsets)


def _check(holds: bool | np.bool_, message: str) -> None:
    if not holds:
        raise DataError(message)


def join(
    about: Description, frames: Sequence[np.ndarray], labels: ArrayLike, subjects: ArrayLike,
    names: Sequence[str], columns: Mapping[str, ArrayLike],
) -> Recordings:  # fmt: skip
    """Concatenate recordings that are in memory, each an array (length, ...) of frames."""
    return Recordings(
        about,
        np.concatenate(frames).astype(np.float32),
        np.cumsum([0, *map(len, frames)], dtype=np.int64),
        np.asarray(labels, np.int64),
        np.asarray(subjects, np.int64),
        np.asarray(names),
        {name: np.asarray(column, np.int64) for name, column in columns.items()},
    )


# --- on disk ------------------------------------------------------------------------------------


def open_recordings(folder: Path, arguments: str | None = None) -> Recordings:
    """Open a converted data set with its frames memory-mapped, read-only.

    If it is not there, the error names the command that makes it: by its ``arguments``, or as one
    that is fetched.
    """
    meta_file = folder / "meta.json"
    if not meta_file.is_file():
        state = "its conversion has not finished" if folder.is_dir() else "it does not exist"
        root = "" if folder.parent == data_root() else f" --root {folder.parent}"
        raise DataError(
            f"{folder} holds no converted recordings ({state}); create it with "
            f"python -m experiments.datasets {arguments or folder.name + root}"
        )
    try:
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        _check(meta.pop("version") == VERSION, f"version must be {VERSION}; convert it again")
        rejected = tuple(Rejected(**one) for one in meta.pop("rejected"))
        meta["bones"] = tuple((parent, child) for parent, child in meta["bones"])
        meta |= {name: tuple(meta[name]) for name in ("class_names", "joint_names")}
        about = Description(**meta)
        frames = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            arrays = {name: index[name] for name in index.files}
        fixed = {name: arrays.pop(name) for name in _ARRAYS}
        return Recordings(about, frames, **fixed, columns=arrays, rejected=rejected)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, DataError) as error:
        raise DataError(f"{folder} is damaged: {error or type(error).__name__}") from error


class Writer:
    """Writes recordings one at a time; see :func:`writing`."""

    def __init__(self, about: Description, bodies: int | None, file: BinaryIO) -> None:
        joints = len(about.joint_names)
        self.about = about
        self.frame_shape = (joints,) if bodies is None else (bodies, joints, 3)
        self.lengths: list[int] = []
        self.rejected: list[Rejected] = []
        self._rows: list[dict[str, Any]] = []
        self._names: set[str] = set()
        self._file = file
        self._header_size = self._write_header()

    def add(self, frames: np.ndarray, label: int, subject: int, name: str, **columns: int) -> None:
        """Append a recording, or raise a DataError if it does not fit."""
        fits = frames.shape[1:] == self.frame_shape and np.isfinite(frames).all()
        _check(fits, f"frames must be finite, of shape {self.frame_shape}; got {frames.shape}")
        single = {column: [value] for column, value in columns.items()}
        frames = join(self.about, [frames], [label], [subject], [name], single).frames
        _check(name not in self._names, f"name must be unique; got {name} twice")
        row = {"labels": label, "subjects": subject, "names": name, **columns}
        known = list(self._rows[0] if self._rows else row)
        _check(list(row) == known, f"columns must be {known}; got {list(row)}")
        self._file.write(frames.astype("<f4").tobytes())
        self.lengths.append(len(frames))
        self._rows.append(row)
        self._names.add(name)

    def reject(self, file: str, reason: str, line: int | None = None) -> None:
        """Record a file, or a part of it, that is left out."""
        self.rejected.append(Rejected(file, reason, line))

    def index(self) -> dict[str, Any]:
        """Return the content of index.npz."""
        columns = {
            name: np.array([row[name] for row in self._rows], None if name == "names" else np.int64)
            for name in self._rows[0]
        }
        return {"offsets": np.cumsum([0, *self.lengths], dtype=np.int64), **columns}

    def finish(self) -> None:
        """Write the header again, now that the number of frames is known."""
        problem = f"{self.about.data_set}: there is no recording"
        _check(bool(self.lengths), "; rejected: ".join([problem, *map(str, self.rejected[:5])]))
        self._file.seek(0)
        if self._write_header() != self._header_size:
            raise RuntimeError("the header of frames.npy has changed its size")

    def _write_header(self) -> int:
        # NumPy leaves space in the header for the first dimension to grow.
        shape = (sum(self.lengths), *self.frame_shape)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        return self._file.tell()


@contextmanager
def writing(
    folder: Path, about: Description, bodies: int | None = None, note: str = ""
) -> Iterator[Writer]:
    """Write a data set one recording at a time, without keeping frames in memory.

    An earlier conversion in the folder is replaced when the block ends. A process that fails or is
    killed leaves the folder as it was, or without meta.json. Frames of skeletons have ``bodies``.
    ``note`` is appended to the source.
    """
    about = replace(about, source=about.source + note)
    with as_data_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "frames.npy") as temporary:
            with temporary.open("wb") as file:
                writer = Writer(about, bodies, file)
                yield writer
                writer.finish()
            # Until the new meta.json is there, the folder must not pass for a finished conversion.
            (folder / "meta.json").unlink(missing_ok=True)
        with replacing(folder / "index.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **writer.index())
        rejected = [asdict(one) for one in writer.rejected]
        meta = {"version": VERSION, **asdict(about), "rejected": rejected}
        write_text(folder / "meta.json", json.dumps(meta, indent=1) + "\n")
