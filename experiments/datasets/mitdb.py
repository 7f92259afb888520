"""MIT-BIH Arrhythmia Database: 48 ECG recordings of half an hour, by G. B. Moody and R. G. Mark.

A recording is a pair of files: ``100.dat`` (WFDB format 212, two leads at 360 Hz, 650,000 samples
of 12 bit) and its header ``100.hea``, which holds the checksum of each lead. Samples are converted
to mV. The recordings serve as very long sequences: their annotations are not read, and all have
the label 0. The columns ``lead_1`` and ``lead_2`` are places in ``LEADS``.
"""

import re
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.raw_files import raw_contents, raw_files
from experiments.datasets.recordings import Description, Recordings, open_recordings, writing
from experiments.datasets.wfdb_header import Header, read_header

ADDRESSES = (
    "https://physionet.org/static/published-projects/mitdb/mit-bih-arrhythmia-database-1.0.0.zip",
)
FILES = re.compile(r"\d{3}\.(dat|hea)")
RECORDINGS = 48
LEADS = ("MLII", "V1", "V2", "V4", "V5")
ABOUT = Description(
    data_set="MIT-BIH Arrhythmia Database",
    kind="signal",
    class_names=("recording",),
    frame_rate=360.0,
    source="MIT-BIH Arrhythmia Database, 1.0.0",
    joint_names=("lead_1", "lead_2"),
)
#: Units per mV, and the sample that stands for 0 mV, in all recordings.
GAIN, ZERO = 200, 1024
#: The sample that stands for a missing one in format 212.
MISSING = -2048
#: Two recordings of the same man.
_SAME_SUBJECT = {202: 201}
_HEADERS, _SAMPLES = re.compile(r"\d{3}\.hea"), re.compile(r"\d{3}\.dat")


def difference(raw: Path) -> str | None:
    """Return how many recordings are missing; None if all are there.

    Their content is verified by the checksums in their headers when they are converted.
    """
    count = sum(1 for _ in raw_files(raw, _HEADERS, lambda file, reason: None))
    return None if count == RECORDINGS else f"{count} of the {RECORDINGS} recordings"


def convert(raw: Path, out: Path, note: str = "") -> Recordings:
    """Convert the files in ``raw``; ``note`` is appended to the source."""
    with writing(out, ABOUT, note=note) as writer:
        headers = dict(raw_contents(raw, _HEADERS, writer.reject))
        there = set()
        for file, data in raw_contents(raw, _SAMPLES, writer.reject):
            name = file.removesuffix(".dat")
            there.add(f"{name}.hea")
            try:
                header = _header_of(name, headers)
                frames = read_samples(data, header)
            except DataError as error:
                writer.reject(file, str(error))
                continue
            one, two = (LEADS.index(signal.name) for signal in header.signals)
            subject = _SAME_SUBJECT.get(int(name), int(name))
            writer.add(frames, 0, subject, name, lead_1=one, lead_2=two)
        for file in sorted(headers.keys() - there):
            writer.reject(file, f"there is no {file.removesuffix('.hea')}.dat")
    return open_recordings(out)


def read_samples(data: bytes, header: Header) -> np.ndarray:
    """Return the samples of both leads in mV, (samples, 2) float32, or raise a DataError."""
    if len(data) != 3 * header.samples:
        raise DataError(f"{len(data)} bytes; expected {3 * header.samples}, 3 for each two samples")
    samples = unpack_212(data)
    for signal, lead in zip(header.signals, samples.T, strict=True):
        checksum = int(lead.sum()) & 0xFFFF
        if lead[0] != signal.first or checksum != signal.checksum & 0xFFFF:
            raise DataError(f"the samples of {signal.name} do not have the checksum in the header")
        if (lead == MISSING).any():
            raise DataError(f"samples of {signal.name} are missing")
    return ((samples - ZERO) / GAIN).astype(np.float32)


def unpack_212(data: bytes) -> np.ndarray:
    """Return pairs of 12-bit numbers, each pair in three bytes, (pairs, 2) int64."""
    low_1, high, low_2 = np.frombuffer(data, np.uint8).reshape(-1, 3).T.astype(np.int64)
    pairs = np.stack([low_1 | (high & 0x0F) << 8, low_2 | (high & 0xF0) << 4], axis=1)
    return np.where(pairs < 2**11, pairs, pairs - 2**12)


def _header_of(name: str, headers: dict[str, bytes]) -> Header:
    if f"{name}.hea" not in headers:
        raise DataError(f"there is no {name}.hea")
    header = read_header(headers[f"{name}.hea"])
    described = [(one.file, one.format, one.gain, one.zero) for one in header.signals]
    expected = [(f"{name}.dat", "212", GAIN, ZERO)] * 2
    if (header.record, header.rate) != (name, ABOUT.frame_rate) or described != expected:
        raise DataError(f"the header is not that of {name}.dat, two leads of 360 Hz in format 212")
    for signal in header.signals:
        if signal.name not in LEADS:
            raise DataError(
                f"the header has a lead {signal.name}; expected one of {', '.join(LEADS)}"
            )
    return header
