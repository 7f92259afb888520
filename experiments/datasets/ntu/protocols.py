"""Who trains and who is tested, as the authors of NTU RGB+D 60 and 120 fixed it.

The published sizes are those without the recordings on the authors' list of missing skeletons. For
NTU RGB+D 120, sizes of 50,922 (cross-subject, tested) and 54,471 (cross-setup, trained) are quoted
too: they come from an earlier list of 532, without three recordings that today's list of 535 has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.ntu.names import Sample
from experiments.datasets.recordings import Recordings

SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
SUBJECTS_120 = (
    *SUBJECTS_60,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89,
    91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
CAMERAS_60 = (2, 3)


@dataclass(frozen=True)
class Protocol:
    """A split of the recordings in two.

    Attributes:
        trains: whether the split trains on a recording.
        sizes: recordings to train on and to test, as published.
    """

    trains: Callable[[Sample], bool]
    sizes: tuple[int, int]


#: By the number of actions and the name of the protocol.
PROTOCOLS = {
    60: {
        "xsub": Protocol(lambda sample: sample.subject in SUBJECTS_60, (40_091, 16_487)),
        "xview": Protocol(lambda sample: sample.camera in CAMERAS_60, (37_646, 18_932)),
    },
    120: {
        "xsub": Protocol(lambda sample: sample.subject in SUBJECTS_120, (63_026, 50_919)),
        "xset": Protocol(lambda sample: sample.setup % 2 == 0, (54_468, 59_477)),
    },
}


def split(recordings: Recordings, protocol: str) -> np.ndarray:
    """Which recordings a protocol trains on; it tests the others.

    Args:
        recordings: NTU RGB+D 60 or 120, converted.
        protocol: ``"xsub"``, or ``"xview"`` (60) or ``"xset"`` (120).

    Returns:
        (N,) bool.

    Raises:
        DataError: the recordings are of another data set, or it has no such protocol.
    """
    actions = len(recordings.about.class_names)
    if not recordings.about.data_set.startswith("NTU RGB+D") or actions not in PROTOCOLS:
        raise DataError(f"recordings must be NTU RGB+D 60 or 120; got {recordings.about.data_set}")
    if protocol not in PROTOCOLS[actions]:
        raise DataError(
            f"protocol must be one of {', '.join(PROTOCOLS[actions])} for "
            f"{recordings.about.data_set}; got {protocol!r}"
        )
    trains = PROTOCOLS[actions][protocol].trains
    return np.array([trains(sample) for sample in samples_of(recordings)], bool)


def samples_of(recordings: Recordings) -> list[Sample]:
    """What the names of converted recordings tell."""
    columns = [
        recordings.columns["setup"],
        recordings.columns["camera"],
        recordings.subjects,
        recordings.columns["repetition"],
        recordings.labels + 1,
    ]
    return [Sample(*numbers) for numbers in np.stack(columns, axis=1).tolist()]


def check_sizes(samples: Iterable[Sample], actions: int) -> None:
    """Check that the official names, when all are there, split as published.

    Args:
        samples: the recordings there are, without those on the list of missing skeletons.
        actions: 60 or 120.

    Raises:
        DataError: there are as many as published, but a protocol splits them in other sizes.
    """
    samples = list(samples)
    for name, protocol in PROTOCOLS[actions].items():
        train = sum(map(protocol.trains, samples))
        sizes = train, len(samples) - train
        if sum(sizes) == sum(protocol.sizes) and sizes != protocol.sizes:
            raise DataError(
                f"there are {sum(sizes):,} recordings, as in the whole of NTU RGB+D {actions}, but "
                f"{name} splits them in {sizes[0]:,} and {sizes[1]:,}; expected "
                f"{protocol.sizes[0]:,} and {protocol.sizes[1]:,}. Are these the official names?"
            )


def summary(recordings: Recordings) -> str:
    """A line for each protocol: its sizes, and the published ones if they differ."""
    lines = []
    for name, protocol in PROTOCOLS[len(recordings.about.class_names)].items():
        train = int(split(recordings, name).sum())
        sizes = train, len(recordings) - train
        line = f"{name}: {sizes[0]:,} train, {sizes[1]:,} test"
        if sizes == protocol.sizes:
            line += " (as published)"
        else:
            line += f" (published: {protocol.sizes[0]:,} and {protocol.sizes[1]:,})"
        lines.append(line)
    return "\n".join(lines)
