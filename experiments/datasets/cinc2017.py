"""PhysioNet/CinC Challenge 2017: 8,528 ECG recordings of four classes, by G. D. Clifford et al.

A hand-held device recorded a single lead at 300 Hz for 9 to 61 s. A recording is a file
``A00001.mat`` (MATLAB 4, one row of int16, 1,000 units per mV). ``REFERENCE.csv`` holds a name and
a class per line: N (normal), A (atrial fibrillation), O (other rhythm) or ~ (noisy). Recordings are
kept whole, in mV. Whose they are is unknown, so that each counts as a subject of its own.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.archives import listing_sha256
from experiments.datasets.label_file import Label, read_labels, read_rows
from experiments.datasets.raw_files import Reject, raw_contents
from experiments.datasets.recordings import Description, Recordings, open_recordings, writing

ADDRESSES = ("https://physionet.org/files/challenge-2017/1.0.0/training2017.zip",)
LABEL_FILE = "REFERENCE.csv"
FILES = re.compile(rf"A\d{{5}}\.mat|{LABEL_FILE}")
#: SHA-256 of the listing of the .mat files and of the labels (see ``_verifiable``).
SHA256 = "8fc3f1d5cb90b8e500c81ee17cb7c6c09bdead830158a0c61a173cb2ad90e1e5"
#: The classes in the files, in the order of the labels.
LETTERS = ("N", "A", "O", "~")
ABOUT = Description(
    data_set="CinC 2017",
    kind="signal",
    class_names=("normal", "atrial fibrillation", "other rhythm", "noisy"),
    frame_rate=300.0,
    source="training set of the PhysioNet/CinC Challenge 2017, 1.0.0",
    joint_names=("ecg",),
)
GAIN = 1000
#: The beginning of a file: a matrix of int16 by its rows and columns, and the length of its name.
_HEADER = struct.Struct("<5i4s")
_NAME = re.compile(r"A\d{5}")
_SAMPLES = re.compile(r"A\d{5}\.mat")


def difference(raw: Path) -> str | None:
    """Return how samples and labels differ from the published ones; None if they do not."""
    same = listing_sha256(_verifiable(raw)) == SHA256
    return None if same else "samples or labels are not those published"


def convert(raw: Path, out: Path, note: str = "") -> Recordings:
    """Convert the files in ``raw``; ``note`` is appended to the source."""
    with writing(out, ABOUT, note=note) as writer:
        labels = _read_label_file(raw, writer.reject)
        there = set()
        for file, data in raw_contents(raw, _SAMPLES, writer.reject):
            name = file.removesuffix(".mat")
            there.add(name)
            try:
                label = _label_of(name, labels)
                frames = read_samples(data)
            except DataError as error:
                writer.reject(file, str(error))
            else:
                writer.add(frames, label, int(name[1:]), name)
        for name, label_of in labels.items():
            if name not in there and label_of.label:
                writer.reject(LABEL_FILE, f"there is no {name}.mat", label_of.line)
    return open_recordings(out)


def read_samples(data: bytes) -> np.ndarray:
    """Return the samples of a .mat file in mV, (samples, 1) float32, or raise a DataError."""
    count = (len(data) - _HEADER.size) // 2
    header = _HEADER.pack(30, 1, max(1, count), 0, 4, b"val\0")
    if len(data) % 2 or not data.startswith(header):
        raise DataError(f"{len(data)} bytes are not a row of int16 named val")
    samples = np.frombuffer(data, "<i2", offset=_HEADER.size)
    return (samples[:, None] / np.float32(GAIN)).astype(np.float32)


def _read_label_file(raw: Path, reject: Reject) -> dict[str, Label]:
    files = dict(raw_contents(raw, re.compile(re.escape(LABEL_FILE)), reject))
    if LABEL_FILE not in files:
        raise DataError(f"raw must hold {LABEL_FILE} of the challenge; {raw} does not")
    rows = list(read_rows(files[LABEL_FILE], LABEL_FILE))
    if rows and not _NAME.fullmatch(rows[0][1][0]):
        del rows[0]  # some copies have a heading line
    return read_labels(rows, LABEL_FILE, 2, reject)


def _label_of(name: str, labels: dict[str, Label]) -> int:
    if name not in labels or not labels[name].label:
        raise DataError(f"{LABEL_FILE} has no label of it")
    if (letter := labels[name].label) not in LETTERS:
        raise DataError(f"its label is {letter!r}; expected one of {' '.join(LETTERS)}")
    return LETTERS.index(letter)


def _verifiable(raw: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what must be as published: the .mat files and the labels, sorted, a line each.

    Copies of the archive differ in line ends and in a heading line.
    """

    def ignore(file: str, reason: str) -> None:
        pass

    yield from raw_contents(raw, _SAMPLES, ignore)
    labels = _read_label_file(raw, ignore)
    text = "".join(f"{name},{one.label}\n" for name, one in sorted(labels.items()))
    yield LABEL_FILE, text.encode()
