"""Who is trained on and who is tested: the published protocols, as folds.

loso    leave one subject out: a fold for each subject
5fold   five folds with subjects of their own: of the sorted subjects, fold k tests every fifth,
from the k-th on
xsub    half of the subjects train, the other half is tested
xview   two cameras train, the third is tested (NTU RGB+D 60)
xset    even camera set-ups train, odd ones are tested (NTU RGB+D 120)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.datasets.recordings import Recordings
from experiments.train.config import ConfigError

#: The protocols of each data set, the default first.
PROTOCOLS = {
    "watch": ("5fold", "loso"),
    "utkinect": ("loso", "5fold"),
    "msr": ("xsub", "loso"),
    "ntu60": ("xsub", "xview"),
    "ntu120": ("xsub", "xset"),
}
#: Draws the subjects that validate.
SPLIT_SEED = 2023


@dataclass(frozen=True)
class Fold:
    """Indices of recordings, (n,) int64 each; no subject is in two of ``train`` and ``val``."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_folds(
    recordings: Recordings, data_set: str, protocol: str, val_subjects: int
) -> list[Fold]:
    """Split recordings.

    Args:
        recordings: of the data set.
        data_set: its name, which decides who trains in ``xsub``.
        protocol: one of its ``PROTOCOLS``.
        val_subjects: so many of the subjects that train are set aside for validation.

    Raises:
        ConfigError: the data set has no such protocol, or not enough subjects.
    """
    if protocol not in PROTOCOLS[data_set]:
        raise ConfigError(
            f"protocol must be one of {', '.join(PROTOCOLS[data_set])} for {data_set}; "
            f"got {protocol!r}"
        )
    return [
        _make_fold(name, is_test, recordings.subjects, val_subjects, number)
        for number, (name, is_test) in enumerate(_tests(recordings, data_set, protocol))
    ]


def _tests(recordings: Recordings, data_set: str, protocol: str) -> list[tuple[str, np.ndarray]]:
    """Name and (N,) mask of the tested recordings, for each fold."""
    if data_set in ("ntu60", "ntu120"):
        from experiments.datasets.ntu import split

        return [(protocol, ~split(recordings, protocol))]
    people, groups = np.unique(recordings.subjects), []
    if protocol == "xsub":
        groups = [people[people % 2 == 0]]  # MSR Action3D: odd subjects train
    elif protocol == "loso":
        groups = [people[[k]] for k in range(len(people))]
    elif protocol == "5fold":
        groups = [people[k::5] for k in range(5)]
    return [
        (f"subjects {', '.join(map(str, group))}", np.isin(recordings.subjects, group))
        for group in groups
    ]


def _make_fold(
    name: str, is_test: np.ndarray, subjects: np.ndarray, val_subjects: int, number: int
) -> Fold:
    people = np.unique(subjects[~is_test])
    if len(people) <= val_subjects:
        raise ConfigError(
            f"val_subjects must be below the {len(people)} subjects that train in the fold "
            f"{name}; got {val_subjects}"
        )
    # RandomState's streams are frozen for good.
    drawn = np.random.RandomState(SPLIT_SEED + number).permutation(people)[:val_subjects]
    is_val = ~is_test & np.isin(subjects, drawn)
    return Fold(
        name, *(np.flatnonzero(mask) for mask in (~is_test & ~is_val, is_val, is_test))
    )  # fmt: skip
