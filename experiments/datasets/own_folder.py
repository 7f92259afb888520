"""Recordings of your own: a folder with a file for each of them, and their labels.

``labels.csv`` has the heading line ``name,label`` or ``name,label,group``, then a line for each
recording: its file's name (with or without the ending), its class, and what must not be divided
between training and test, such as the person. A recording is ``NAME.csv``, a line for each step
with its numbers, separated by commas, below at most one heading line; or ``NAME.npy``, an array
(steps, channels) or (steps,) of real numbers.
"""

import dataclasses
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.label_file import Label, read_labels, read_rows
from experiments.datasets.raw_files import Reject, raw_contents
from experiments.datasets.recordings import Description, Recordings, Rejected, join

LABEL_FILE = "labels.csv"
HEADINGS = (["name", "label"], ["name", "label", "group"])
#: A field of a heading line. One that begins like a number is a number, maybe a damaged one.
_WORD = re.compile(r"(?!nan|inf)[^\W\d]|\"", re.IGNORECASE)
_FILES = re.compile(r".*\.(csv|npy)", re.DOTALL)


def load_folder(folder: Path) -> Recordings:
    """Load the recordings in ``folder``; those that cannot be read are in ``rejected``.

    Classes are in the order of their names. Subjects are the groups; without groups, each recording
    is a subject of its own.
    """
    rejected: list[Rejected] = []

    def reject(file: str, reason: str) -> None:
        rejected.append(Rejected(file, reason))

    contents = dict(raw_contents(folder, _FILES, reject))
    if LABEL_FILE not in contents:
        raise DataError(f"{folder} must hold {LABEL_FILE}")
    labels = _labels_of_files(contents, reject)
    frames = _read_all({file: contents[file] for file in labels}, reject)
    if not frames:
        problem = f"{folder} holds no recording that can be read"
        raise DataError("; ".join([problem, *map(str, rejected[:5])]))
    taken = [labels[file] for file in frames]
    classes = sorted({one.label for one in taken})
    groups = [one.group or file for file, one in zip(frames, taken, strict=True)]
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    channels = next(iter(frames.values())).shape[1]
    about = Description(
        data_set=folder.resolve().name,
        kind="signal",
        class_names=tuple(classes),
        frame_rate=1.0,  # unknown: time is counted in steps
        source="files of one's own",
        joint_names=tuple(f"channel_{index}" for index in range(channels)),
    )
    recordings = join(
        about, [*frames.values()], [classes.index(one.label) for one in taken],
        [numbers[group] for group in groups], [*frames], {},
    )  # fmt: skip
    return dataclasses.replace(recordings, rejected=tuple(rejected))


def _labels_of_files(contents: dict[str, bytes], reject: Reject) -> dict[str, Label]:
    """Return the label of each file that has one, in the order of the files."""
    rows = list(read_rows(contents[LABEL_FILE], LABEL_FILE))
    if not rows or rows[0][1] not in HEADINGS:
        wanted = " or ".join(",".join(heading) for heading in HEADINGS)
        raise DataError(f"{LABEL_FILE} must begin with the line {wanted}")
    labels = read_labels(rows[1:], LABEL_FILE, len(rows[0][1]), reject)
    taken: dict[str, Label] = {}
    named: set[str] = set()
    files = [file for file in contents if file != LABEL_FILE]
    stems = Counter(file[:-4] for file in files)
    for file in files:
        names = [name for name in (file, file[:-4]) if name in labels]
        if len(names) != 1 or (names == [file[:-4]] and stems[names[0]] > 1):
            count = "no label" if not names else "more than one label or file of this name"
            reject(file, f"{count} in {LABEL_FILE}")
        else:
            taken[file] = labels[names[0]]
        named.update(names)
    for name, label in labels.items():
        if name not in named:
            reject(f"{LABEL_FILE}:{label.line}", f"there is no file {name}")
    return taken


def _read_all(contents: dict[str, bytes], reject: Reject) -> dict[str, np.ndarray]:
    """Read the files; those with another number of channels than most are rejected."""
    frames: dict[str, np.ndarray] = {}
    for file, data in contents.items():
        try:
            frames[file] = _read_csv(data) if file.endswith(".csv") else _read_npy(data)
        except DataError as error:
            reject(file, str(error))
    channels = Counter(one.shape[1] for one in frames.values()).most_common(1)
    for file, one in [*frames.items()]:
        if one.shape[1] != channels[0][0]:
            reject(file, f"{one.shape[1]} channels; most recordings have {channels[0][0]}")
            del frames[file]
    return frames


def _read_csv(data: bytes) -> np.ndarray:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"no text in UTF-8: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and all(_WORD.match(field.strip()) for field in lines[0].split(",")):
        del lines[0]  # a heading
    if not lines:
        raise DataError("the file holds no numbers")
    try:
        numbers = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise DataError(f"no lines of numbers: {str(error).partition(';')[0]}") from error
    return _checked(numbers)


def _read_npy(data: bytes) -> np.ndarray:
    try:
        numbers = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise DataError(f"no array can be read: {error}") from error
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "iuf":
        raise DataError("no array of real numbers")
    return _checked(numbers[:, None] if numbers.ndim == 1 else numbers)


def _checked(numbers: np.ndarray) -> np.ndarray:
    if numbers.ndim != 2 or 0 in numbers.shape:
        raise DataError(f"the shape is {numbers.shape}; expected (steps, channels), both above 0")
    with np.errstate(over="ignore"):
        frames = numbers.astype(np.float32)
    if not np.isfinite(frames).all():
        raise DataError("NaN, infinity or a number too large for float32")
    return frames
