"""A small part of a data set of signals: what minutes, or seconds, are enough for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from experiments.datasets.recordings import Recordings, join
from experiments.sequences import SPLIT_SEED
from experiments.signals.synthetic import make_recordings
from experiments.tasks.signals import SignalsConfig
from experiments.train.config import option


class SubsetConfig(SignalsConfig):
    """Train on as many recordings of each class, or on made-up ones."""

    per_class: int = option(100, "recordings of each class", least=1)
    synthetic: bool = option(False, "made-up pulse trains in place of the data set")

    def load(self) -> Recordings:
        """Load the recordings, or raise a DataError."""
        if self.synthetic:
            return make_recordings(self.per_class)
        return balanced(super().load(), self.per_class)

    def identity(self) -> dict[str, Any]:
        """Return the fields that results depend on."""
        return super().identity() | ({"data_set": "synthetic"} if self.synthetic else {})


def balanced(recordings: Recordings, per_class: int) -> Recordings:
    """Return ``per_class`` recordings of each class, or all where there are fewer."""
    # RandomState's streams never change.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(recordings))
    labels = recordings.labels[order]
    classes = range(len(recordings.about.class_names))
    chosen = np.sort(np.concatenate([order[labels == one][:per_class] for one in classes]))
    columns = {name: column[chosen] for name, column in recordings.columns.items()}
    return replace(
        join(
            recordings.about, [recordings[index] for index in chosen], recordings.labels[chosen],
            recordings.subjects[chosen], recordings.names[chosen], columns,
        ),
        rejected=recordings.rejected,
    )  # fmt: skip
