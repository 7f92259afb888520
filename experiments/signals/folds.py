"""Splits of recordings into training, validation and test, with equal shares of the classes.

folds     fold k tests the k-th of equal parts of the recordings
official  the authors' test set (the indices 0 to 4 of spoken digits)
speaker   fold k tests the k-th speaker

The recordings of a subject are never divided, except in ``official``, whose speakers are in all
parts. Validation takes an eighth of what is not tested, or a subject if there are fewer than eight.
All splits are drawn with ``SPLIT_SEED``.
"""

from __future__ import annotations

import numpy as np

from experiments.datasets.fsdd import SPEAKERS, TEST_INDICES
from experiments.datasets.recordings import Recordings
from experiments.sequences import SPLIT_SEED, Fold
from experiments.train.config import ConfigError

#: The splits of each data set, the default first; ``folder`` stands for a folder of one's own.
SPLITS = {
    "cinc2017": ("folds",),
    "fsdd": ("official", "speaker"),
    "folder": ("folds",),
}
#: Parts of the training data, one of which is for validation.
VALIDATION_PARTS = 8


def make_folds(recordings: Recordings, split: str, folds: int) -> list[Fold]:
    """Return the folds of a split; ``folds`` is their number for the split ``"folds"``.

    Raises:
        ConfigError: a part of a fold has no recording of some class, or there is a single class.
    """
    classes = np.unique(recordings.labels)
    if len(classes) < 2:
        name = recordings.about.class_names[classes[0]]
        raise ConfigError(f"recordings must be of two classes or more; all are of {name!r}")
    everyone, subjects = np.arange(len(recordings)), recordings.subjects
    # Speakers speak in training and in the official test; a validation like that test divides them.
    groups = everyone if split == "official" else subjects
    tests: list[np.ndarray]
    if split == "official":
        tests = [np.flatnonzero(np.isin(recordings.columns["index"], TEST_INDICES))]
        names = [f"indices {TEST_INDICES[0]} to {TEST_INDICES[-1]}"]
    elif split == "speaker":
        tests = [np.flatnonzero(subjects == speaker) for speaker in np.unique(subjects)]
        names = [f"speaker {SPEAKERS[speaker]}" for speaker in np.unique(subjects)]
    else:
        if folds > _most_parts(everyone, recordings.labels, groups):
            raise ConfigError(_too_few(recordings, groups, folds))
        tests = _parts(everyone, recordings.labels, groups, folds)
        names = [f"part {number} of {folds}" for number in range(1, folds + 1)]
    made = []
    for name, test in zip(names, tests, strict=True):
        rest = np.setdiff1d(everyone, test)
        val = _validation(rest, recordings.labels, groups)
        # In random order, so that the first of them, a subset, are of all classes.
        generator = np.random.RandomState(SPLIT_SEED)
        parts = np.setdiff1d(rest, val), val, test
        made.append(Fold(name, *map(generator.permutation, parts)))
        _check(recordings, made[-1])
    return made


def _validation(rest: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the smallest part that has all classes, and leaves all; if none does, the first."""
    most = min(VALIDATION_PARTS, _most_parts(rest, labels, groups))
    classes, first = len(np.unique(labels[rest])), rest[:0]
    for count in range(most, 1, -1):
        for val in _parts(rest, labels, groups, count):
            both = val, np.setdiff1d(rest, val)
            if all(len(np.unique(labels[part])) == classes for part in both):
                return val
            first = first if len(first) else val
    return first


def _most_parts(chosen: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> int:
    """Return the number of parts of which each can have a recording of each class."""
    classes = labels[chosen]
    return min(len(np.unique(groups[chosen][classes == one])) for one in np.unique(classes))


def _too_few(recordings: Recordings, groups: np.ndarray, folds: int) -> str:
    """Say which class has fewer recordings, or groups of them, than folds."""
    labels, names = recordings.labels, recordings.about.class_names
    counts = {names[one]: len(np.unique(groups[labels == one])) for one in np.unique(labels)}
    rarest = min(counts, key=lambda name: counts[name])
    unit = "recording" if len(np.unique(groups)) == len(recordings) else "group"
    has = f"{counts[rarest]} {unit}" + "s" * (counts[rarest] > 1)
    return (
        f"class {rarest!r} has {has}; {folds} folds need {folds} of each class: record more, or "
        "lower --folds"
    )


def _parts(
    chosen: np.ndarray, labels: np.ndarray, groups: np.ndarray, count: int
) -> list[np.ndarray]:
    """Divide the chosen recordings into parts with equal shares of the classes."""
    # It takes a second to import, which other tasks need not wait for.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    grouped = len(np.unique(groups[chosen])) < len(chosen)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(count, shuffle=True, random_state=SPLIT_SEED)
    divided = splitter.split(chosen, labels[chosen], groups[chosen] if grouped else None)
    return [chosen[part] for _, part in divided]


def _check(recordings: Recordings, fold: Fold) -> None:
    for part in ("train", "val", "test"):
        missing = np.setdiff1d(recordings.labels, recordings.labels[getattr(fold, part)])
        if len(missing):
            raise ConfigError(
                f"the class {recordings.about.class_names[missing[0]]!r} has no recording in the "
                f"{part} part of the fold {fold.name}: choose another number of folds, or add "
                "recordings"
            )
