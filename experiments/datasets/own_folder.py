"""Recordings of your own: a folder with a file for each of them, and their labels.

``labels.csv`` has the heading line ``name,label`` or ``name,label,group``, then a line for each
recording: its file's name (with or without the ending), its class, and what must not be divided
between training and test, such as the person. A recording is ``NAME.csv``, a line for each step
with its numbers, separated by commas, below at most one heading line; or ``NAME.npy``, an array
(steps, channels) or (steps,) of real numbers. Links must stay inside the folder.

A heading has names that begin with letters, or counts the columns: 0,1,2. A single ``0`` is a
heading only if a number of the file has a decimal point: otherwise it is the first step.
"""

import dataclasses
import io
import os
import re
from collections import Counter
from pathlib import Path
from tokenize import TokenError
from unicodedata import normalize
from zipfile import BadZipFile

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.label_file import Label, read_labels, read_rows
from experiments.datasets.raw_files import Reject, printable, raw_contents
from experiments.datasets.recordings import Description, Recordings, Rejected, join

LABEL_FILE = "labels.csv"
HEADINGS = (["name", "label"], ["name", "label", "group"])
#: A field of a heading line. One that begins like a number is a number, maybe a damaged one.
_WORD = re.compile(r"(?!(nan|inf|infinity)$)[^\W\d]|\"", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
#: Errors of np.load where a file is damaged.
_OF_DAMAGE = (
    ValueError, EOFError, OSError, SyntaxError, TokenError, MemoryError, OverflowError, BadZipFile,
)  # fmt: skip
_FILES = re.compile(r".*\.(csv|npy)", re.DOTALL | re.IGNORECASE)
#: The largest number: differences of such numbers are in the range of float32, too.
LARGEST = 1e38


def load_folder(folder: Path) -> Recordings:
    """Load the recordings in ``folder``; those that cannot be read are in ``rejected``.

    Classes are in the order of their names. Subjects are the groups; without groups, each recording
    is a subject of its own.
    """
    if not folder.is_dir():
        raise DataError(f"--folder must be the folder of your recordings; {folder} is no folder")
    _check_links(folder)
    rejected: list[Rejected] = []

    def reject(file: str, reason: str) -> None:
        rejected.append(Rejected(file, reason))

    contents: dict[str, bytes] = {}
    for file, data in raw_contents(folder, _FILES, reject):
        if (name := normalize("NFC", file)) in contents:
            reject(file, "there is another file of this name, written with other accents")
        else:
            contents[name] = data
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


def _check_links(folder: Path) -> None:
    """Raise a DataError if a link to a file leads out of the folder."""
    inside = os.path.realpath(folder)
    for path in folder.rglob("*"):
        if path.is_symlink() and _FILES.fullmatch(path.name):
            target = os.path.realpath(path)
            if not Path(target).is_relative_to(inside):
                raise DataError(
                    f"--folder must hold your recordings; {printable(str(path))} is a link that "
                    f"leads out of it, to {printable(target)}: copy the file into the folder"
                )


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
        elif labels[names[0]].label:  # otherwise its line has been rejected
            taken[file] = labels[names[0]]
        named.update(names)
    for name, label in labels.items():
        if name not in named and label.label:
            bare = "" if Path(name).name == name else ": names have no folders"
            reject(f"{LABEL_FILE}, line {label.line}", f"there is no file {name}{bare}")
    return taken


def _read_all(contents: dict[str, bytes], reject: Reject) -> dict[str, np.ndarray]:
    """Read the files; those with another number of channels than most are rejected."""
    frames: dict[str, np.ndarray] = {}
    for file, data in contents.items():
        try:
            frames[file] = _read(file, data)
        except DataError as error:
            reject(file, str(error))
    channels = Counter(one.shape[1] for one in frames.values()).most_common(1)
    for file, one in [*frames.items()]:
        if one.shape[1] != channels[0][0]:
            reject(file, f"{one.shape[1]} channels; most recordings have {channels[0][0]}")
            del frames[file]
    return frames


def read_recording(file: Path) -> np.ndarray:
    """Return the frames in a file, (steps, channels) float32; DataError says what is wrong."""
    if not _FILES.fullmatch(file.name):
        raise DataError("the name must end in .csv or .npy")
    try:
        return _read(file.name, file.read_bytes())
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}") from error


def _read(name: str, data: bytes) -> np.ndarray:
    return _read_csv(data) if name.lower().endswith(".csv") else _read_npy(data)


def _read_csv(data: bytes) -> np.ndarray:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"no text in UTF-8: {error}") from error
    # With their numbers in the file, from 1.
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    heading = lines.pop(0)[1] if lines and _is_heading(lines[0][1], text) else None
    if not lines:
        raise DataError("the file holds no numbers")
    try:
        numbers = np.loadtxt([line for _, line in lines], delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise DataError(_fault(lines) or f"no lines of numbers: {error}") from error
    if heading is not None:
        names, columns = 1 + _QUOTED.sub("", heading).count(","), numbers.shape[1]
        if names != columns:
            counts = f"the heading has {names} names, the lines {columns} numbers"
            raise DataError(f"{counts}: written with row names?")
    return as_frames(numbers)


def _is_heading(line: str, text: str) -> bool:
    fields = [field.strip() for field in line.split(",")]
    if fields[0] == "" and len(fields) > 1 and _is_heading(line.partition(",")[2], "."):
        raise DataError(
            "the heading begins with an empty field: written with an index? use to_csv(index=False)"
        )
    counted = fields == [str(number) for number in range(len(fields))]
    return all(map(_WORD.match, fields)) or (counted and (len(fields) > 1 or "." in text))


def _fault(lines: list[tuple[int, str]]) -> str | None:
    """Return what is wrong with the first line that is no line of numbers."""
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "blanks")):
        if all(mark in line.strip() and "," not in line for _, line in lines):
            return f"separated by {name}: use commas"
    columns = len(lines[0][1].split(","))
    for place, (number, line) in enumerate(lines):
        fields = [field.strip() for field in line.split(",")]
        wrong = [field for field in fields if not _is_number(field)]
        if "" in wrong:
            return f"line {number}: missing value"
        strange = [field for field in wrong if not _WORD.match(field)]
        if place == 0 and 0 < len(strange) < len(wrong) == len(fields):
            return f"line {number}: the names of a heading begin with letters; got {strange[0]!r}"
        if wrong:
            return f"line {number}: {wrong[0]!r} is no number"
        if len(fields) != columns:
            return f"line {number}: {len(fields)} numbers; the lines above have {columns}"
    return None


def _is_number(field: str) -> bool:
    try:
        float(field.replace("_", "?"))  # float() reads 1_000
    except ValueError:
        return False
    return True


def _read_npy(data: bytes) -> np.ndarray:
    try:
        numbers = np.load(io.BytesIO(data), allow_pickle=False)
    except _OF_DAMAGE as error:
        raise DataError(f"no array can be read: {error or type(error).__name__}") from error
    if not isinstance(numbers, np.ndarray):
        raise DataError("no array of real numbers")
    return as_frames(numbers)


def as_frames(numbers: np.ndarray) -> np.ndarray:
    """Return an array (steps, channels) or (steps,) as (steps, channels) float32, or DataError."""
    if numbers.dtype.kind not in "iuf":
        raise DataError("no array of real numbers")
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or 0 in numbers.shape:
        raise DataError(f"the shape is {numbers.shape}; expected (steps, channels), both above 0")
    with np.errstate(over="ignore"):
        frames = numbers.astype(np.float32)
    if not (np.abs(frames) <= LARGEST).all():
        raise DataError(f"NaN, infinity or a number above {LARGEST:g}, too large for float32")
    lost, spread = np.abs(frames - numbers.astype(np.float64)).max(0), np.ptp(frames, axis=0)
    if ((lost > 1e-3 * spread) & (np.ptp(numbers, axis=0) > 0)).any():
        raise DataError(
            "float32 loses what varies: subtract a large offset, or scale up tiny numbers, first"
        )
    return frames
