"""UTKinect-Action3D and MSR Action3D: skeletons of 20 joints, from the files of their authors.

UTKinect-Action3D (Xia, Chen and Aggarwal, 2012): ten subjects do ten actions twice. A file
``joints_sSS_eEE.txt`` is one session of a subject, a line a frame: the frame number, then x, y and
z of each joint in metres. ``actionLabel.txt`` tells the first and the last frame of each action.
Frame numbers skip where no skeleton was found, and repeat where two were found for one camera
image: both lines are kept, in their order.

MSR Action3D (Li, Zhang and Liu, 2010): ten subjects do twenty actions two or three times. A file
``aAA_sSS_eEE_skeleton3D.txt`` is one sample, a line a joint: x, y, z and a confidence, which is not
used. Twenty lines make a frame; frames with all joints at 0, where no skeleton was found, are left
out.

A line that cannot be read spoils the samples it belongs to, and no others. A truncated file, whose
last line has no end, counts as spoiled at that line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.recordings import (
    Description,
    Recordings,
    Writer,
    open_recordings,
    writing,
)

JOINTS = 20
#: Metres; the sensor sees about 8, so a coordinate beyond has lost its decimal point.
FARTHEST = 20.0

UTKINECT = Description(
    data_set="UTKinect-Action3D",
    kind="skeleton",
    class_names=(
        "walk", "sitDown", "standUp", "pickUp", "carry", "throw", "push", "pull", "waveHands",
        "clapHands",
    ),
    frame_rate=15.0,  # about: the skeletons of one camera image in two
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
    # The authors draw these bones, but do not say which side is whose left.
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
    name: str, raw: str | os.PathLike[str], out: str | os.PathLike[str], workers: int = 1
) -> Recordings:
    """Convert the authors' files to the format of :mod:`experiments.datasets.recordings`.

    Args:
        name: ``"utkinect"`` or ``"msr"``.
        raw: folder that holds the files, at any depth.
        out: folder to write.
        workers: not used: reading takes seconds.

    Returns:
        What was converted; its ``rejected`` lists what was left out, and why.

    Raises:
        DataError: there is no file to read, or no sample in them.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise DataError(f"raw must be the folder of the authors' files; {raw} is no folder")
    about, read = {"utkinect": (UTKINECT, _read_utkinect), "msr": (MSR, _read_msr)}[name]
    with writing(out, about, bodies=1) as writer:
        read(raw, writer)
    return open_recordings(out)


# --- tables of numbers --------------------------------------------------------------------------


@dataclass
class _Table:
    """The lines of a text file as numbers.

    Attributes:
        values: (L, columns) float64; a row of NaN for each line that could not be read.
        lines: (L,) the line of each row, from 1: blank lines make no row.
        problems: what is wrong with each line that could not be read, by row.
    """

    values: np.ndarray
    lines: list[int]
    problems: dict[int, str]


def _read_table(data: bytes, columns: int) -> _Table:
    rows: list[list[float]] = []
    lines: list[int] = []
    problems: dict[int, str] = {}
    # Truncated in the middle of a number, the last line would still be a line of numbers.
    whole = data.endswith((b"\n", b"\r"))
    texts = data.splitlines()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        values = _numbers(text, columns)
        if not whole and number == len(texts):
            values = "the file ends in the middle of a line"
        if isinstance(values, str):
            problems[len(rows)] = values
            values = [np.nan] * columns
        rows.append(values)
        lines.append(number)
    return _Table(np.array(rows, np.float64).reshape(-1, columns), lines, problems)


def _numbers(text: bytes, columns: int) -> list[float] | str:
    """The numbers of a line, or what is wrong with it."""
    words = text.split()
    if len(words) != columns:
        return f"{len(words)} numbers, expected {columns}"
    if b"_" in text:  # float() takes 1_000 for a number
        return "a word that is no number"
    try:
        values = [float(word) for word in words]
    except ValueError:
        return "a word that is no number"
    return values if np.isfinite(values).all() else "NaN or infinity"


def _too_far(joints: np.ndarray) -> str | None:
    farthest = np.abs(joints).max()
    if farthest <= FARTHEST:
        return None
    return f"a coordinate of {farthest:.4g} m, expected at most {FARTHEST:g}"


def _text_files(raw: Path, writer: Writer) -> Iterator[tuple[str, bytes]]:
    """Name and content of every text file under ``raw``, in order of their names."""

    def cannot_list(error: OSError) -> None:
        writer.reject(Path(error.filename).name, f"the folder cannot be read: {error.strerror}")

    found = [
        Path(folder) / file
        for folder, _, files in os.walk(raw, onerror=cannot_list)
        for file in files
        if file.lower().endswith(".txt")
    ]
    for path in sorted(found, key=lambda path: (path.name, path)):
        try:
            yield path.name, path.read_bytes()
        except OSError as error:
            writer.reject(path.name, f"the file cannot be read: {error.strerror}")


# --- UTKinect-Action3D --------------------------------------------------------------------------

_SESSION = re.compile(r"s(\d\d)_e(\d\d)")
_SESSION_FILE = re.compile(r"joints_(s\d\d_e\d\d)\.txt")
_LABEL_FILE = "actionLabel.txt"


@dataclass(frozen=True)
class _Action:
    """A line of actionLabel.txt: an action and the numbers of its first and last frame."""

    session: str
    name: str
    first: int
    last: int
    line: int


def _read_utkinect(raw: Path, writer: Writer) -> None:
    sessions: dict[str, bytes] = {}
    labels = None
    for name, data in _text_files(raw, writer):
        match = _SESSION_FILE.fullmatch(name)
        if name == _LABEL_FILE and labels is None:
            labels = data
        elif name == _LABEL_FILE or (match and match[1] in sessions):
            writer.reject(name, "there is another file of this name")
        elif match:
            sessions[match[1]] = data
        elif name.startswith("joints"):
            writer.reject(name, "the name is not joints_sSS_eEE.txt")
    if labels is None:
        raise DataError(f"raw must hold {_LABEL_FILE} of UTKinect-Action3D; {raw} does not")
    actions = list(_read_labels(labels, writer))
    for session, data in sessions.items():
        mine = [action for action in actions if action.session == session]
        if mine:
            _add_actions(f"joints_{session}.txt", data, mine, writer)
        else:
            writer.reject(f"joints_{session}.txt", f"{_LABEL_FILE} has no action of it")
    for action in actions:
        if action.session not in sessions:
            writer.reject(_LABEL_FILE, f"joints_{action.session}.txt is not there", action.line)


def _read_labels(data: bytes, writer: Writer) -> Iterator[_Action]:
    session = None
    seen = set()
    for line, text in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        words = text.split()
        if len(words) == 1 and not words[0].endswith(":"):
            session = words[0] if _SESSION.fullmatch(words[0]) else None
            if session is None:
                writer.reject(_LABEL_FILE, f"{words[0]!r} is no session like s01_e01", line)
        elif words:
            action = _read_label(words, session, line)
            if isinstance(action, str):
                writer.reject(_LABEL_FILE, action, line)
            elif (action.session, action.name) in seen:
                writer.reject(_LABEL_FILE, f"a second {action.name} of {action.session}", line)
            else:
                seen.add((action.session, action.name))
                yield action


def _read_label(words: list[str], session: str | None, line: int) -> _Action | str:
    """The action, or what is wrong with the line."""
    name = words[0].removesuffix(":")
    if session is None:
        return "an action of no session"
    if name not in UTKINECT.class_names:
        return f"{name!r} is none of the ten actions"
    frames = words[1:]
    if len(frames) != 2 or not all(word.isdecimal() for word in frames):
        return f"{session} {name}: {' '.join(frames)!r} is no first and last frame"
    first, last = map(int, frames)
    if first > last:
        return f"{session} {name}: the first frame {first} comes after the last, {last}"
    return _Action(session, name, first, last, line)


def _add_actions(file: str, data: bytes, actions: list[_Action], writer: Writer) -> None:
    table = _read_table(data, 1 + 3 * JOINTS)
    _check_frame_numbers(table)
    numbers = table.values[:, 0]
    for action in actions:
        rows = _rows_of(action, numbers)
        if isinstance(rows, str):
            writer.reject(file, f"{action.name}: {rows}")
            continue
        spoiled = next((row for row in range(*rows) if row in table.problems), None)
        if spoiled is not None:
            problem = f"{action.name}: {table.problems[spoiled]}"
            writer.reject(file, problem, table.lines[spoiled])
            continue
        joints = table.values[slice(*rows), 1:].reshape(-1, 1, JOINTS, 3)
        if too_far := _too_far(joints):
            writer.reject(file, f"{action.name}: {too_far}", table.lines[rows[0]])
            continue
        subject, session = map(int, _SESSION.fullmatch(action.session).groups())  # type: ignore[union-attr]
        writer.add(
            joints, UTKINECT.class_names.index(action.name), subject,
            f"{action.session}_{action.name}", repetition=session,
        )  # fmt: skip


def _check_frame_numbers(table: _Table) -> None:
    """Spoil the lines whose frame number is no whole number or less than the one before."""
    highest = -np.inf
    for row, number in enumerate(table.values[:, 0]):
        if row in table.problems:
            continue
        if number != round(number) or number < highest:
            table.problems[row] = f"frame number {number:g} after {highest:g}"
            table.values[row] = np.nan
        else:
            highest = number


def _rows_of(action: _Action, numbers: np.ndarray) -> tuple[int, int] | str:
    """First row and row after the last of an action, or why there are none.

    ``numbers`` are the frame numbers, NaN for spoiled lines. Those at the borders may be of the
    action or not, so they count as its lines.
    """
    good = np.flatnonzero(~np.isnan(numbers))
    sound = numbers[good]
    # The authors' intervals all begin and end inside the session.
    if not len(sound) or action.first < sound[0] or action.last > sound[-1]:
        reach = f"{sound[0]:g} to {sound[-1]:g}" if len(sound) else "none"
        return f"frames {action.first} to {action.last} are asked for, the file has {reach}"
    first, after = np.searchsorted(sound, [action.first, action.last + 1])
    if first == after:
        return f"no frame between {action.first} and {action.last}"
    begin = good[first - 1] + 1 if first else 0
    end = good[after] if after < len(good) else len(numbers)
    return int(begin), int(end)


# --- MSR Action3D -------------------------------------------------------------------------------

_SAMPLE_FILE = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_skeleton3D\.txt")


def _read_msr(raw: Path, writer: Writer) -> None:
    seen = set()
    for name, data in _text_files(raw, writer):
        match = _SAMPLE_FILE.fullmatch(name)
        if match is None:
            writer.reject(name, "the name is not aAA_sSS_eEE_skeleton3D.txt")
            continue
        action, subject, repetition = map(int, match.groups())
        if not 1 <= action <= len(MSR.class_names):
            writer.reject(name, f"action {action} is none of 1 to {len(MSR.class_names)}")
        elif name in seen:
            writer.reject(name, "there is another file of this name")
        else:
            seen.add(name)
            joints = _read_sample(name, data, writer)
            if joints is not None:
                writer.add(
                    joints, action - 1, subject, name.removesuffix("_skeleton3D.txt"),
                    repetition=repetition,
                )  # fmt: skip


def _read_sample(name: str, data: bytes, writer: Writer) -> np.ndarray | None:
    """The joints, (length, 1, 20, 3); or None, if the file was rejected."""
    table = _read_table(data, 4)
    if table.problems:
        row, problem = next(iter(table.problems.items()))
        writer.reject(name, problem, table.lines[row])
        return None
    if len(table.values) % JOINTS or not len(table.values):
        writer.reject(name, f"{len(table.values)} lines, expected {JOINTS} for each frame")
        return None
    joints = table.values[:, :3].reshape(-1, 1, JOINTS, 3)
    joints = joints[(joints != 0).any(axis=(1, 2, 3))]
    if not len(joints):
        writer.reject(name, "no frame has a skeleton: all joints are at 0")
        return None
    if too_far := _too_far(joints):
        writer.reject(name, too_far)
        return None
    return joints
