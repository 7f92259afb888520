"""A random forest on statistics of each sequence, the usual method for such recordings.

It gets the sequences that the network gets at test, centred and turned alike, in the same folds.
"""

import dataclasses
import statistics
from collections import defaultdict
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from experiments.action.dataset import SequenceDataset
from experiments.sequences import Key
from experiments.tasks.action import ActionConfig, make_parts

#: Frequencies above 0 of the spectrum of each channel.
FREQUENCIES = 7


def describe(sequence: np.ndarray) -> np.ndarray:
    """Return mean, deviation, extremes, quartiles and lowest frequencies, (n, F) to (13 F,)."""
    mean = sequence.mean(0)
    spectrum = np.abs(np.fft.rfft(sequence - mean, axis=0))[1 : FREQUENCIES + 1] / len(sequence)
    missing = np.zeros((FREQUENCIES - len(spectrum), sequence.shape[1]))
    extremes = sequence.min(0), sequence.max(0)
    quartiles = np.quantile(sequence, [0.25, 0.75], axis=0)
    return np.concatenate([mean, sequence.std(0), *extremes, *quartiles, *spectrum, *missing])


def train_forests(config: ActionConfig, trees: int = 300) -> dict[str, Any]:
    """Train and test a random forest on each fold of ``config``; return the accuracies."""
    recordings = config.load()
    accuracies, of_subjects = [], defaultdict(list)
    for fold in range(len(config.folds(recordings))):
        parts = make_parts(dataclasses.replace(config, fold=fold), recordings)
        forest = RandomForestClassifier(trees, random_state=config.seed)
        forest.fit(_describe_all(parts.train), parts.train.labels)
        right = forest.predict(_describe_all(parts.test)) == parts.test.labels
        accuracies.append(float(right.mean()))
        subjects = recordings.subjects[parts.test.sources]
        for subject, one in zip(subjects.tolist(), right.tolist(), strict=True):
            of_subjects[subject].append(one)
    return {
        "trees": trees,
        "test_accuracy": statistics.fmean(accuracies),
        "test_accuracies": accuracies,
        "accuracy_of_subjects": {
            str(subject): statistics.fmean(right) for subject, right in sorted(of_subjects.items())
        },
    }


def _describe_all(data: SequenceDataset) -> np.ndarray:
    """Describe the first clip of each sequence, (len(data), statistics)."""
    return np.stack([describe(data[Key(i)][0][0].numpy()) for i in range(len(data))])
