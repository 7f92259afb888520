"""UTKinect-Action3D and MSR Action3D: skeletons of 20 joints, from the authors' files.

UTKinect-Action3D (Xia, Chen and Aggarwal, 2012): ten subjects perform ten actions twice. A file
``joints_sSS_eEE.txt`` is one session of a subject, with one frame per line: the frame number, then
x, y and z of each joint in metres. ``actionLabel.txt`` gives the first and last frame of each
action. Frame numbers skip where no skeleton was found, and repeat where two were found in one
camera image; both lines are kept, in order.

MSR Action3D (Li, Zhang and Liu, 2010): ten subjects perform twenty actions two or three times. A
file ``aAA_sSS_eEE_skeleton3D.txt`` is one sample, with one joint per line: x, y, z and a
confidence, which is ignored. Twenty lines make a frame. Frames without a skeleton, with all joints
at 0, are left out.

A line that cannot be read spoils the samples that it belongs to and no others. The last line of a
file must end in a newline, or the file counts as truncated there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.raw_files import raw_files
from experiments.datasets.recordings import (
    Description,
    Recordings,
    Writer,
    open_recordings,
    writing,
)

JOINTS = 20
#: Metres. The sensor sees about 8: a larger coordinate has lost its decimal point.
FARTHEST = 20.0

UTKINECT = Description(
    data_set="UTKinect-Action3D",
    kind="skeleton",
    class_names=(
        "walk", "sitDown", "standUp", "pickUp", "carry", "throw", "push", "pull", "waveHands",
        "clapHands",
    ),
    frame_rate=15.0,  # approximately: a skeleton for every second camera image
    source="joints_*.txt and actionLabel.txt of the authors",
    joint_names=(
        "hip_center", "spine", "shoulder_center", "head",
        "shoulder_left", "elbow_left", "wrist_left", "hand_left",
        "shoulder_right", "elbow_right", "wrist_right", "hand_right",
        "hip_left", "knee_left", "ankle_left", "foot_left",
        "hip_right", "knee_right", "ankle_right", "foot_right",
    ),
    bones=(
        (0, 1), (1, 2), (2, 3), (2, 4), (4, 5), (5, 6), (6, 7), (2, 8), (8, 9), (9, 10), (10, 11),
        (0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
    ),
)  # fmt: skip

MSR = Description(
    data_set="MSR Action3D",
    kind="skeleton",
    class_names=(
        "high arm wave", "horizontal arm wave", "hammer", "hand catch", "forward punch",
        "high throw", "draw x", "draw tick", "draw circle", "hand clap", "two hand wave",
        "side boxing", "bend", "forward kick", "side kick", "jogging", "tennis swing",
        "tennis serve", "golf swing", "pick up and throw",
    ),
    frame_rate=15.0,
    source="a*_s*_e*_skeleton3D.txt of the authors",
    # The authors draw these bones, but do not name the sides.
    joint_names=(
        "shoulder_right", "shoulder_left", "shoulder_center", "spine", "hip_right", "hip_left",
        "hip_center", "elbow_right", "elbow_left", "wrist_right", "wrist_left", "hand_right",
        "hand_left", "knee_right", "knee_left", "ankle_right", "ankle_left", "foot_right",
        "foot_left", "head",
    ),
    bones=(
        (6, 3), (3, 2), (2, 19), (2, 0), (0, 7), (7, 9), (9, 11), (2, 1), (1, 8), (8, 10), (10, 12),
        (6, 4), (4, 13), (13, 15), (15, 17), (6, 5), (5, 14), (14, 16), (16, 18),
    ),
)  # fmt: skip


def convert(
    name: str,
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None = None,
) -> Recordings:
    """Convert the authors' files to the format of :mod:`experiments.datasets.recordings`.

    Args:
        name: ``"utkinect"`` or ``"msr"``.
        raw: folder that holds the files, at any depth.
        out: folder to write.
        workers: unused, as reading takes seconds.

    Returns:
        The recordings; ``rejected`` lists what was left out, and why.

    Raises:
        DataError: if there is no file to read, or no sample in the files.
    """
    about, read = {"utkinect": (UTKINECT, _read_utkinect), "msr": (MSR, _read_msr)}[name]
    with writing(out, about, bodies=1) as writer:
        read(Path(raw), writer)
    return open_recordings(out)


# --- tables of numbers --------------------------------------------------------------------------


class _Problem(Exception):
    """A line, or more of a file, that cannot be read; the message says why."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class _Table:
    """The lines of a text file as numbers.

    Attributes:
        values: (L, columns) float64, with a row of NaN for each line that cannot be read.
        lines: (L,) the line of each row, from 1; blank lines have no row.
        problems: the reason for each unreadable row.
    """

    values: np.ndarray
    lines: list[int]
    problems: dict[int, str]

    def check(self, rows: Iterable[int]) -> None:
        """Raise the first problem of these rows."""
        for row in rows:
            if row in self.problems:
                raise _Problem(self.problems[row], self.lines[row])


def _read_table(data: bytes, columns: int) -> _Table:
    table = _Table(np.empty(0), [], {})
    rows: list[list[float]] = []
    # A last line that is cut in the middle of a number would still be a line of numbers.
    truncated = not data.endswith((b"\n", b"\r"))
    texts = data.splitlines()
    for line, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            if truncated and line == len(texts):
                raise _Problem("the file ends in the middle of a line")
            rows.append(_numbers(text, columns))
        except _Problem as problem:
            table.problems[len(rows)] = str(problem)
            rows.append([np.nan] * columns)
        table.lines.append(line)
    table.values = np.array(rows, np.float64).reshape(-1, columns)
    return table


def _numbers(text: bytes, columns: int) -> list[float]:
    words = text.split()
    if len(words) != columns:
        raise _Problem(f"{len(words)} numbers, expected {columns}")
    try:
        if b"_" in text:  # float() reads 1_000 as a number
            raise ValueError
        values = [float(word) for word in words]
    except ValueError:
        raise _Problem("a word that is no number") from None
    if not np.isfinite(values).all():
        raise _Problem("NaN or infinity")
    return values


def _check_distance(joints: np.ndarray, line: int | None = None) -> None:
    farthest = np.abs(joints).max()
    if farthest > FARTHEST:
        raise _Problem(f"a coordinate of {farthest:.4g} m, expected at most {FARTHEST:g}", line)


def _contents(raw: Path, pattern: re.Pattern[str], writer: Writer) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files that match."""
    for path in raw_files(raw, pattern, writer.reject):
        try:
            yield path.name, path.read_bytes()
        except OSError as error:
            writer.reject(path.name, f"the file cannot be read: {error.strerror}")


# --- UTKinect-Action3D --------------------------------------------------------------------------

_LABEL_FILE = "actionLabel.txt"
_UTKINECT_FILES = re.compile(rf"joints.*\.txt|{_LABEL_FILE}", re.DOTALL)
_SESSION = re.compile(r"s\d\d_e\d\d")


@dataclass(frozen=True)
class _Action:
    """A line of actionLabel.txt: an action with its first and last frame."""

    session: str
    name: str
    first: int
    last: int
    line: int


def _read_utkinect(raw: Path, writer: Writer) -> None:
    files = dict(_contents(raw, _UTKINECT_FILES, writer))
    if _LABEL_FILE not in files:
        raise DataError(f"raw must hold {_LABEL_FILE} of UTKinect-Action3D; {raw} does not")
    actions = list(_read_labels(files.pop(_LABEL_FILE), writer))
    for file, data in files.items():
        session = file.removeprefix("joints_").removesuffix(".txt")
        mine = [action for action in actions if action.session == session]
        if not _SESSION.fullmatch(session):
            writer.reject(file, "the name is not joints_sSS_eEE.txt")
        elif mine:
            _add_actions(file, data, mine, writer)
        else:
            writer.reject(file, f"{_LABEL_FILE} has no action of it")
    for action in actions:
        if (file := f"joints_{action.session}.txt") not in files:
            writer.reject(_LABEL_FILE, f"{file} is not there", action.line)


def _read_labels(data: bytes, writer: Writer) -> Iterator[_Action]:
    session = None
    seen = set()
    for line, text in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        words = text.split()
        try:
            if len(words) == 1 and not words[0].endswith(":"):
                session = words[0] if _SESSION.fullmatch(words[0]) else None
                if session is None:
                    raise _Problem(f"{words[0]!r} is no session like s01_e01")
            elif words:
                action = _read_label(words, session, line)
                if (action.session, action.name) in seen:
                    raise _Problem(f"a second {action.name} of {action.session}")
                seen.add((action.session, action.name))
                yield action
        except _Problem as problem:
            writer.reject(_LABEL_FILE, str(problem), line)


def _read_label(words: list[str], session: str | None, line: int) -> _Action:
    name = words[0].removesuffix(":")
    if session is None:
        raise _Problem("an action of no session")
    if name not in UTKINECT.class_names:
        raise _Problem(f"{name!r} is none of the ten actions")
    frames = words[1:]
    if len(frames) != 2 or not all(word.isdecimal() for word in frames):
        raise _Problem(f"{session} {name}: {' '.join(frames)!r} is no first and last frame")
    first, last = map(int, frames)
    if first > last:
        raise _Problem(f"{session} {name}: the first frame {first} comes after the last, {last}")
    return _Action(session, name, first, last, line)


def _add_actions(file: str, data: bytes, actions: list[_Action], writer: Writer) -> None:
    table = _read_table(data, 1 + 3 * JOINTS)
    _check_frame_numbers(table)
    for action in actions:
        try:
            rows = _rows_of(action, table.values[:, 0])
            table.check(rows)
            joints = table.values[rows, 1:].reshape(-1, 1, JOINTS, 3)
            _check_distance(joints, table.lines[rows[0]])
        except _Problem as problem:
            writer.reject(file, f"{action.name}: {problem}", problem.line)
            continue
        writer.add(
            joints, UTKINECT.class_names.index(action.name), int(action.session[1:3]),
            f"{action.session}_{action.name}", repetition=int(action.session[5:7]),
        )  # fmt: skip


def _check_frame_numbers(table: _Table) -> None:
    """Spoil the lines whose frame number is no integer or less than the one before."""
    highest = -np.inf
    for row, number in enumerate(table.values[:, 0]):
        if row in table.problems:
            continue
        if number != round(number) or number < highest:
            table.problems[row] = f"frame number {number:g} after {highest:g}"
            table.values[row] = np.nan
        else:
            highest = number


def _rows_of(action: _Action, numbers: np.ndarray) -> range:
    """Return the rows of an action.

    Args:
        action: what to find.
        numbers: the frame numbers, NaN for spoiled lines. Spoiled lines at the borders of an action
            may belong to it, so they are included.
    """
    good = np.flatnonzero(~np.isnan(numbers))
    sound = numbers[good]
    # The authors' intervals all begin and end inside the session.
    if not len(sound) or action.first < sound[0] or action.last > sound[-1]:
        reach = f"{sound[0]:g} to {sound[-1]:g}" if len(sound) else "none"
        raise _Problem(
            f"frames {action.first} to {action.last} are asked for, the file has {reach}"
        )
    first, after = np.searchsorted(sound, [action.first, action.last + 1])
    if first == after:
        raise _Problem(f"no frame between {action.first} and {action.last}")
    begin = good[first - 1] + 1 if first else 0
    end = good[after] if after < len(good) else len(numbers)
    return range(int(begin), int(end))


# --- MSR Action3D -------------------------------------------------------------------------------

_MSR_FILES = re.compile(r".*\.txt", re.IGNORECASE | re.DOTALL)
_SAMPLE_FILE = re.compile(r"(a(\d\d)_s(\d\d)_e(\d\d))_skeleton3D\.txt")


def _read_msr(raw: Path, writer: Writer) -> None:
    for file, data in _contents(raw, _MSR_FILES, writer):
        try:
            match = _SAMPLE_FILE.fullmatch(file)
            if match is None:
                raise _Problem("the name is not aAA_sSS_eEE_skeleton3D.txt")
            name, action, subject, repetition = match[1], *map(int, match.groups()[1:])
            if not 1 <= action <= len(MSR.class_names):
                raise _Problem(f"action {action} is none of 1 to {len(MSR.class_names)}")
            joints = _read_sample(data)
        except _Problem as problem:
            writer.reject(file, str(problem), problem.line)
            continue
        writer.add(joints, action - 1, subject, name, repetition=repetition)


def _read_sample(data: bytes) -> np.ndarray:
    """Return the joints, (length, 1, 20, 3)."""
    table = _read_table(data, 4)
    table.check(range(len(table.lines)))
    if len(table.values) % JOINTS or not len(table.values):
        raise _Problem(f"{len(table.values)} lines, expected {JOINTS} for each frame")
    joints = table.values[:, :3].reshape(-1, 1, JOINTS, 3)
    joints = joints[(joints != 0).any(axis=(1, 2, 3))]
    if not len(joints):
        raise _Problem("no frame has a skeleton: all joints are at 0")
    _check_distance(joints)
    return joints
