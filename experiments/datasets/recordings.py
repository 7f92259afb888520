"""Recordings of movements, whatever the data set: one format on disk, one object in memory.

A converted data set is a folder with three files:

    frames.npy  float32, all frames of all recordings behind one another: (F, bodies, joints, 3) in
                metres for skeletons (a body that is not there is all 0), (F, channels) for signals.
                Opened memory-mapped, so a data set larger than memory can be trained on.
    index.npz   offsets (N + 1,): recording i has the frames offsets[i] to offsets[i + 1];
                labels (N,) from 0, subjects (N,), names (N,), and further int64 columns (N,).
    meta.json   what the numbers mean, where they come from, and what was rejected on the way.

meta.json is written last: a folder without it is a conversion that has not ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from experiments.datasets import DataError
from experiments.files import replacing, write_text

#: Changes when a folder written before can no longer be read.
VERSION = 1
#: Dimensions of a frame.
KINDS = {"skeleton": 3, "signal": 1}
_ARRAYS = ("offsets", "labels", "subjects", "names")


@dataclass(frozen=True)
class Rejected:
    """Part of a file that is no recording.

    Attributes:
        file: its name, without the folder.
        reason: what is wrong: what was found, and what was expected.
        line: where, from 1; None if it concerns the whole file.
    """

    file: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True)
class Description:
    """What the numbers of a data set mean: the content of meta.json.

    Attributes:
        data_set: its name, as it goes into results.
        kind: ``"skeleton"`` or ``"signal"``.
        class_names: a name for each label.
        frame_rate: frames per second.
        source: where the recordings come from, without folders of this machine.
        joint_names: a name for each joint, in small letters with underscores, sides last
            (``hip_left``). For signals: the names of the channels.
        bones: (parent, child) for each bone, as indices of joints; together they make a tree, and
            the joint that is nobody's child is its root. Empty for signals.
    """

    data_set: str
    kind: str
    class_names: Sequence[str]
    frame_rate: float
    source: str
    joint_names: Sequence[str]
    bones: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        outside = [b for b in self.bones if not all(0 <= j < len(self.joint_names) for j in b)]
        if outside:
            raise DataError(f"bones name joints that are not there: {outside}")

    @property
    def root(self) -> int:
        """The joint that all bones lead to."""
        [root] = {parent for parent, _ in self.bones} - {child for _, child in self.bones}
        return root


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings of different lengths; ``recordings[i]`` is the frames of one.

    Attributes:
        about: what the numbers mean.
        frames: (F, bodies, joints, 3) or (F, channels) float32, all recordings in turn.
        offsets: (N + 1,) int64.
        labels: (N,) int64, from 0.
        subjects: (N,) int64, who moves.
        names: (N,), unique.
        columns: further int64 numbers of each recording, (N,), by name: camera, setup, ...
        rejected: what was left out.

    Raises:
        DataError: the arrays do not fit together.
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
        _check_frames(self.about, self.frames)
        count = len(self.labels)
        arrays = {"labels": self.labels, "subjects": self.subjects, "names": self.names}
        for name, array in {**arrays, **self.columns}.items():
            if array.shape != (count,) or (name != "names" and array.dtype != np.int64):
                raise DataError(
                    f"{name} must be int64 of shape ({count},); got {array.dtype} {array.shape}"
                )
        ends = self.offsets
        if ends.shape != (count + 1,) or ends[0] != 0 or ends[-1] != len(self.frames):
            raise DataError(
                f"offsets must be {count + 1} numbers from 0 to the {len(self.frames)} frames; "
                f"got {len(ends)} from {ends[:1]} to {ends[-1:]}"
            )
        if (np.diff(ends) < 1).any():
            raise DataError("offsets must grow: every recording has at least one frame")
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.about.class_names):
            raise DataError(
                f"labels must be from 0 to {len(self.about.class_names) - 1}; "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """The frames of one recording, (length, ...), without a copy."""
        return self.frames[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) frames of each recording."""
        return np.diff(self.offsets)


def _check_frames(about: Description, frames: np.ndarray) -> None:
    dimensions = 1 + KINDS[about.kind]
    last = (len(about.joint_names), 3) if about.kind == "skeleton" else (len(about.joint_names),)
    if frames.ndim != dimensions or frames.shape[-len(last) :] != last:
        raise DataError(
            f"frames of a {about.kind} must have {dimensions} dimensions, the last of them {last}; "
            f"got shape {frames.shape}"
        )
    if frames.dtype != np.float32:
        raise DataError(f"frames must be float32; got {frames.dtype}")


def join(
    about: Description,
    frames: Sequence[np.ndarray],
    labels: Sequence[int],
    subjects: Sequence[int],
    names: Sequence[str],
    columns: Mapping[str, Sequence[int]] | None = None,
    rejected: Sequence[Rejected] = (),
) -> Recordings:
    """Put recordings that are in memory behind one another.

    Args:
        about: what the numbers mean.
        frames: one array (length, ...) for each recording.
        labels, subjects, names, columns, rejected: as in :class:`Recordings`.
    """
    if not frames:
        raise DataError(f"{about.data_set}: there is no recording{_listed(rejected)}")
    return Recordings(
        about,
        np.concatenate(frames).astype(np.float32),
        np.cumsum([0, *map(len, frames)], dtype=np.int64),
        np.asarray(labels, np.int64),
        np.asarray(subjects, np.int64),
        np.asarray(names),
        {name: np.asarray(column, np.int64) for name, column in (columns or {}).items()},
        tuple(rejected),
    )


def _listed(rejected: Sequence[Rejected], shown: int = 5) -> str:
    if not rejected:
        return ""
    lines = [str(one) for one in rejected[:shown]]
    more = [f"and {len(rejected) - shown} more"] if len(rejected) > shown else []
    return "; rejected: " + "; ".join(lines + more)


# --- on disk ------------------------------------------------------------------------------------


def open_recordings(folder: str | os.PathLike[str]) -> Recordings:
    """Open a converted data set, its frames memory-mapped (read-only).

    Args:
        folder: what a conversion wrote.

    Raises:
        DataError: the folder is no converted data set, is damaged, or is of another version.
    """
    folder = Path(folder)
    meta_file = folder / "meta.json"
    if not meta_file.is_file():
        state = "its conversion has not ended" if folder.is_dir() else "it does not exist"
        raise DataError(
            f"{folder} holds no converted recordings ({state}): python -m experiments.datasets makes it"
        )
    try:
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        if meta.pop("version") != VERSION:
            raise DataError(f"another version than {VERSION}; convert it again")
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
    """Writes recordings one by one; see :func:`writing`."""

    def __init__(self, about: Description, bodies: int | None, file: BinaryIO) -> None:
        joints = len(about.joint_names)
        self.about = about
        self.frame_shape = (joints,) if bodies is None else (bodies, joints, 3)
        self.lengths: list[int] = []
        self.rejected: list[Rejected] = []
        self._rows: list[dict[str, Any]] = []
        self._names: set[str] = set()
        self._file = file
        self._header_size = file.write(self._header())

    def add(self, frames: np.ndarray, label: int, subject: int, name: str, **columns: int) -> None:
        """Append a recording.

        Args:
            frames: (length, bodies, joints, 3) or (length, channels), finite.
            label: from 0.
            subject: who moves.
            name: unique.
            columns: further numbers, the same names for each recording.

        Raises:
            ValueError: the recording does not fit; nothing was written of it.
        """
        if frames.shape[1:] != self.frame_shape or not len(frames):
            raise ValueError(
                f"frames must be (length, {', '.join(map(str, self.frame_shape))}) with at least "
                f"one; got {frames.shape}"
            )
        if not np.isfinite(frames).all():
            raise ValueError("frames must be finite; got NaN or infinity")
        if not 0 <= label < len(self.about.class_names):
            raise ValueError(f"label must be below {len(self.about.class_names)}; got {label}")
        if name in self._names:
            raise ValueError(f"there is a recording {name} already")
        row = {"labels": label, "subjects": subject, "names": name, **columns}
        if self._rows and row.keys() != self._rows[0].keys():
            raise ValueError(f"columns must be {list(self._rows[0])}; got {list(row)}")
        self._file.write(np.ascontiguousarray(frames, "<f4").tobytes())
        self.lengths.append(len(frames))
        self._rows.append(row)
        self._names.add(name)

    def reject(self, file: str, reason: str, line: int | None = None) -> None:
        """Note what was left out."""
        self.rejected.append(Rejected(file, reason, line))

    def index(self) -> dict[str, Any]:
        """The content of index.npz."""
        columns = {name: np.asarray([row[name] for row in self._rows]) for name in self._rows[0]}
        return {"offsets": np.cumsum([0, *self.lengths], dtype=np.int64)} | {
            name: column if name == "names" else column.astype(np.int64)
            for name, column in columns.items()
        }

    def finish(self) -> None:
        """Write the header again, now that the number of frames is known."""
        self._file.seek(0)
        if self._file.write(self._header()) != self._header_size:
            raise RuntimeError("the header of frames.npy has changed its size")

    def _header(self) -> bytes:
        # NumPy leaves room in the header for the first dimension to grow.
        header = BytesIO()
        shape = (sum(self.lengths), *self.frame_shape)
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        return header.getvalue()


@contextmanager
def writing(
    folder: str | os.PathLike[str], about: Description, bodies: int | None = None
) -> Iterator[Writer]:
    """Write a data set as its recordings come, holding none of their frames.

    A process that is killed, or fails, leaves a folder without meta.json, or the one that was there
    before.

    Args:
        folder: made if need be; what was converted there before is replaced once the block ends.
        about: what the numbers mean.
        bodies: bodies of a frame; None for signals.

    Yields:
        A :class:`Writer`, to :meth:`~Writer.add` recordings to.

    Raises:
        DataError: no recording was added.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "frames.npy") as temporary:
        with temporary.open("wb") as file:
            writer = Writer(about, bodies, file)
            yield writer
            if not writer.lengths:
                raise DataError(
                    f"{about.data_set}: there is no recording{_listed(writer.rejected)}"
                )
            writer.finish()
        # From here to the end the folder is incomplete, and says so by having no meta.json.
        (folder / "meta.json").unlink(missing_ok=True)
    with replacing(folder / "index.npz") as temporary, temporary.open("wb") as index_file:
        np.savez(index_file, **writer.index())
    meta = {
        "version": VERSION, **asdict(about), "rejected": [asdict(one) for one in writer.rejected],
    }  # fmt: skip
    write_text(folder / "meta.json", json.dumps(meta, indent=1) + "\n")
