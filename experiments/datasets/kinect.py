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

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.raw_files import raw_contents
from experiments.datasets.recordings import (
    Description,
    Recordings,
    SkeletonError,
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


def convert(name: str, raw: Path, out: Path, workers: int | None = None) -> Recordings:
    """Convert ``"utkinect"`` or ``"msr"``; ``workers`` is unused, as reading takes seconds."""
    about, read = {"utkinect": (UTKINECT, _read_utkinect), "msr": (MSR, _read_msr)}[name]
    with writing(out, about, bodies=1) as writer:
        read(raw, writer)
    return open_recordings(out)


class _Row(NamedTuple):
    """A line of numbers, or of NaN with the problem of the line."""

    line: int
    numbers: list[float]
    problem: str | None = None


def _read_rows(data: bytes, columns: int, with_frame_numbers: bool = False) -> list[_Row]:
    """Read the lines of a file; blank lines have no row."""
    rows = []
    highest = -np.inf
    for line, text in enumerate(data.splitlines(keepends=True), 1):
        if not text.strip():
            continue
        try:
            numbers = _numbers(text, columns)
            if with_frame_numbers:
                if numbers[0] != round(numbers[0]) or numbers[0] < highest:
                    raise SkeletonError(f"frame number {numbers[0]:g} after {highest:g}")
                highest = numbers[0]
            rows.append(_Row(line, numbers))
        except SkeletonError as error:
            rows.append(_Row(line, [np.nan] * columns, error.reason))
    return rows


def _numbers(text: bytes, columns: int) -> list[float]:
    words = text.split()
    # A line that is cut in the middle of a number would still be a line of numbers.
    if not text.endswith((b"\n", b"\r")):
        raise SkeletonError("the file ends in the middle of a line")
    if len(words) != columns:
        raise SkeletonError(f"{len(words)} numbers, expected {columns}")
    try:
        numbers = [float(word.replace(b"_", b"?")) for word in words]  # float() reads 1_000
    except ValueError:
        raise SkeletonError("a word that is no number") from None
    if not np.isfinite(numbers).all():
        raise SkeletonError("NaN or infinity")
    return numbers


def _skeletons(rows: Sequence[_Row], columns: slice) -> np.ndarray:
    """Return the joints in these columns, (length, 1, 20, 3), or raise the first problem."""
    for row in rows:
        if row.problem is not None:
            raise SkeletonError(row.problem, row.line)
    numbers = np.array([row.numbers[columns] for row in rows])
    if not rows or numbers.size % (3 * JOINTS):
        raise SkeletonError(f"{len(rows)} lines, expected {JOINTS} for each frame")
    farthest = np.abs(numbers).max(axis=1)
    if farthest.max() > FARTHEST:
        problem = f"a coordinate of {farthest.max():.4g} m, expected at most {FARTHEST:g}"
        raise SkeletonError(problem, rows[farthest.argmax()].line)
    return numbers.reshape(-1, 1, JOINTS, 3)


_UNTRACKED = "no frame has a skeleton: all joints are at 0"

# --- UTKinect-Action3D --------------------------------------------------------------------------

_LABEL_FILE = "actionLabel.txt"
_UTKINECT_FILES = re.compile(rf"joints.*\.txt|{_LABEL_FILE}", re.DOTALL)
_SESSION = re.compile(r"s\d\d_e\d\d")


class _Action(NamedTuple):
    """A line of actionLabel.txt."""

    session: str
    name: str
    first: int
    last: int
    line: int


def _read_utkinect(raw: Path, writer: Writer) -> None:
    files = dict(raw_contents(raw, _UTKINECT_FILES, writer.reject))
    if _LABEL_FILE not in files:
        raise DataError(f"raw must hold {_LABEL_FILE} of UTKinect-Action3D; {raw} does not")
    actions = list(_read_labels(files.pop(_LABEL_FILE), writer))
    for file, data in files.items():
        session = file.removeprefix("joints_").removesuffix(".txt")
        mine = [action for action in actions if action.session == session]
        if not _SESSION.fullmatch(session):
            writer.reject(file, "the name is not joints_sSS_eEE.txt")
        elif not mine:
            writer.reject(file, f"{_LABEL_FILE} has no action of it")
        else:
            _add_actions(file, data, mine, writer)
    for action in actions:
        if (file := f"joints_{action.session}.txt") not in files:
            writer.reject(_LABEL_FILE, f"{file} is not there", action.line)


def _read_labels(data: bytes, writer: Writer) -> Iterator[_Action]:
    session = None
    seen = set()
    for line, text in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        words = text.split()
        if not words:
            continue
        name, frames = words[0].removesuffix(":"), words[1:]
        numbers = [int(word) for word in frames if word.isdecimal()]
        problem = None
        if words == [name]:
            session = name if _SESSION.fullmatch(name) else None
            problem = None if session else f"{name!r} is no session like s01_e01"
        elif session is None:
            problem = "an action of no session"
        elif name not in UTKINECT.class_names:
            problem = f"{name!r} is none of the ten actions"
        elif not len(frames) == len(numbers) == 2 or numbers[0] > numbers[1]:
            problem = f"{session} {name}: {' '.join(frames)!r} is no first and last frame"
        elif (session, name) in seen:
            problem = f"a second {name} of {session}"
        else:
            seen.add((session, name))
            yield _Action(session, name, numbers[0], numbers[1], line)
        if problem:
            writer.reject(_LABEL_FILE, problem, line)


def _add_actions(file: str, data: bytes, actions: list[_Action], writer: Writer) -> None:
    rows = _read_rows(data, 1 + 3 * JOINTS, with_frame_numbers=True)
    frames = np.array([row.numbers[0] for row in rows])
    for action in actions:
        try:
            joints = _skeletons(rows[_find(action, frames)], slice(1, None))
            if not joints.any():
                raise SkeletonError(_UNTRACKED)
        except SkeletonError as error:
            writer.reject(file, f"{action.name}: {error.reason}", error.line)
            continue
        label, session = UTKINECT.class_names.index(action.name), action.session
        subject, repetition = int(session[1:3]), int(session[5:7])
        writer.add(joints, label, subject, f"{session}_{action.name}", repetition=repetition)


def _find(action: _Action, frames: np.ndarray) -> slice:
    """Return the rows of an action, given their frame numbers, NaN for unreadable rows.

    Unreadable rows at the borders of an action may belong to it, so they are included.
    """
    good = np.flatnonzero(~np.isnan(frames))
    sound = frames[good]
    first, after = np.searchsorted(sound, [action.first, action.last + 1])
    # The authors' intervals all begin and end inside the session.
    if first == after or action.first < sound[0] or action.last > sound[-1]:
        raise SkeletonError(f"the file does not have the frames {action.first} to {action.last}")
    begin = good[first - 1] + 1 if first else 0
    return slice(begin, good[after] if after < len(good) else len(frames))


# --- MSR Action3D -------------------------------------------------------------------------------

_MSR_FILES = re.compile(r".*\.txt", re.IGNORECASE | re.DOTALL)
_MSR_SUBJECTS = 10
_SAMPLE_FILE = re.compile(r"(a(\d\d)_s(\d\d)_e(\d\d))_skeleton3D\.txt")


def _read_msr(raw: Path, writer: Writer) -> None:
    for file, data in raw_contents(raw, _MSR_FILES, writer.reject):
        try:
            match = _SAMPLE_FILE.fullmatch(file)
            if match is None:
                raise SkeletonError("the name is not aAA_sSS_eEE_skeleton3D.txt")
            action, subject, repetition = map(int, match.groups()[1:])
            if not 1 <= action <= len(MSR.class_names):
                raise SkeletonError(f"action {action} is none of 1 to {len(MSR.class_names)}")
            if not 1 <= subject <= _MSR_SUBJECTS:
                raise SkeletonError(f"subject {subject} is none of 1 to {_MSR_SUBJECTS}")
            joints = _skeletons(_read_rows(data, 4), slice(3))
            joints = joints[joints.any(axis=(1, 2, 3))]
            if not len(joints):
                raise SkeletonError(_UNTRACKED)
        except SkeletonError as error:
            writer.reject(file, error.reason, error.line)
        else:
            writer.add(joints, action - 1, subject, match[1], repetition=repetition)
