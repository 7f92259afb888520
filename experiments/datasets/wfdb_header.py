"""Headers (.hea) of recordings in the WFDB format of PhysioNet, read strictly.

The package wfdb reads them too, but accepts files that are longer than their header says, or that
differ from its checksums, and takes a mistaken gain for 200 units per mV.
"""

import re
from typing import NamedTuple

from experiments.datasets import DataError

_RECORD = re.compile(r"(\S+) (\d{1,3}) (\d{1,6}) (\d{1,9})(?: .*)?")
_SIGNAL = re.compile(
    r"(\S+) (\d+(?:\+\d+)?) (\d{1,6})(?:/mV)? (\d+) (-?\d+) (-?\d+) (-?\d+) (\d+) (.+)"
)


class Signal(NamedTuple):
    """A line of a header that describes a signal.

    Attributes:
        format: that of the samples; ``16+24`` is format 16 from byte 24 of the file on.
        gain: units of a sample per mV.
        zero: the sample that stands for 0 mV.
        first: the first sample.
        checksum: sum of all samples, modulo 2**16, signed.
        name: such as the lead of an ECG.
    """

    file: str
    format: str
    gain: int
    zero: int
    first: int
    checksum: int
    name: str


class Header(NamedTuple):
    """The content of a header; ``rate`` is in Hz, ``samples`` are those of each signal."""

    record: str
    rate: int
    samples: int
    signals: list[Signal]


def read_header(data: bytes) -> Header:
    """Read the content of a .hea file, or raise a DataError that says what is wrong."""
    text = data.decode("latin-1").splitlines()
    lines = [line.strip() for line in text if line.strip() and not line.startswith("#")]
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None:
        raise DataError("the header does not begin with name, signals, rate and samples")
    count, rate, samples = map(int, record.groups()[1:])
    if len(lines) != 1 + count:
        raise DataError(f"the header has {len(lines) - 1} lines of signals; expected {count}")
    signals = [_read_signal(line) for line in lines[1:]]
    if samples == 0:
        raise DataError("the header says that there are no samples")
    return Header(record[1], rate, samples, signals)


def _read_signal(line: str) -> Signal:
    match = _SIGNAL.fullmatch(line)
    if match is None:
        raise DataError(f"the header describes no signal in mV by {line!r}")
    file, kind, gain, _, zero, first, checksum, _, name = match.groups()
    return Signal(file, kind, int(gain), int(zero), int(first), int(checksum), name)
