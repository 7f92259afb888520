"""Published protocols as folds: who is trained on and who is tested.

loso    leave one subject out: a fold for each subject
5fold   fold k tests every fifth of the sorted subjects, from the k-th on
xsub    half of the subjects train, the other half is tested
xview   two cameras train, the third is tested (NTU RGB+D 60)
xset    even camera set-ups train, odd ones are tested (NTU RGB+D 120)
"""

import numpy as np

from experiments.datasets.ntu.samples import split
from experiments.datasets.recordings import Recordings
from experiments.sequences import SPLIT_SEED, Fold
from experiments.train.config import ConfigError

#: The protocols of each data set, the default first.
PROTOCOLS = {
    "watch": ("5fold", "loso"),
    "utkinect": ("loso", "5fold"),
    "msr": ("xsub", "loso"),
    "ntu60": ("xsub", "xview"),
    "ntu120": ("xsub", "xset"),
}


def make_folds(
    recordings: Recordings, data_set: str, protocol: str, val_subjects: int
) -> list[Fold]:
    """Split recordings by one of ``PROTOCOLS``, with ``val_subjects`` of those who train as val.

    Raises:
        ConfigError: there is no such protocol, or nobody to test or to train on in a fold.
    """
    if protocol not in PROTOCOLS[data_set]:
        raise ConfigError(
            f"protocol must be one of {', '.join(PROTOCOLS[data_set])} for {data_set}; "
            f"got {protocol!r}"
        )
    subjects = recordings.subjects
    people = np.unique(subjects)
    groups = {
        "xsub": [people[people % 2 == 0]],  # MSR Action3D: odd subjects train
        "5fold": [people[k::5] for k in range(5)],
        "loso": [people[[k]] for k in range(len(people))],
    }
    if data_set in ("ntu60", "ntu120"):
        tests = {protocol: ~split(recordings, protocol)}
    else:
        tests = {
            f"subjects {', '.join(map(str, group))}": np.isin(subjects, group)
            for group in groups[protocol]
        }
    folds = []
    for number, (name, is_test) in enumerate(tests.items()):
        people = np.unique(subjects[~is_test])
        if not len(people) or not is_test.any():
            raise ConfigError(
                f"protocol {protocol!r} leaves fold {number} nothing to "
                f"{'test' if len(people) else 'train on'}: the recordings are of the subjects "
                f"{', '.join(map(str, np.unique(subjects)))} alone"
            )
        if len(people) <= val_subjects:
            raise ConfigError(
                f"val_subjects must be below the {len(people)} subjects that train in the fold "
                f"{name}; got {val_subjects}"
            )
        # RandomState's streams never change.
        drawn = np.random.RandomState(SPLIT_SEED + number).permutation(people)[:val_subjects]
        is_val = ~is_test & np.isin(subjects, drawn)
        folds.append(Fold(name, *map(np.flatnonzero, (~is_test & ~is_val, is_val, is_test))))
    return folds
