"""Recordings as the sequences that a classifier trains on: one Dataset for all data sets.

Random draws depend only on the seed, the epoch and the number of the sequence, so that they are the
same for any number of DataLoader workers and in a resumed run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.action.augment import Augmentation
from experiments.action.sampling import Sampling, take
from experiments.action.views import View, starting_pose
from experiments.datasets.recordings import Recordings
from experiments.sequences import Key, Sequences, load
from experiments.train.task import Batch

#: The largest number of sequences to take mean and deviation of the features from.
MEASURED = 500


@dataclass(eq=False)
class SequenceDataset(Sequences):
    """Sequences made of some recordings.

    Attributes:
        recordings: the whole data set.
        chosen: indices of the recordings to use.
        time: the stretching of time in training, see :mod:`experiments.action.sampling`.
        mean: subtracted from the features, (F,) float32 after :meth:`measure`.
        deviation: divides them, (F,) float32 after :meth:`measure`.
        sources: (len,) int64, the recording that each sequence is part of.
    """

    recordings: Recordings
    chosen: np.ndarray
    sampling: Sampling
    view: View
    augmentation: Augmentation
    time: float
    seed: int
    mean: np.ndarray | float = 0.0
    deviation: np.ndarray | float = 1.0

    def __post_init__(self) -> None:
        lengths = self.recordings.lengths[self.chosen].tolist()
        counts = [self.sampling.sequences(length) for length in lengths]
        self.sources = np.repeat(self.chosen, counts)
        self._places = np.concatenate([np.arange(count) for count in [0, *counts]])

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def labels(self) -> np.ndarray:
        """Return the label of each sequence, (len,) int64."""
        return self.recordings.labels[self.sources]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """Return a sequence, (n, features) or at test (clips, n, features), and its label."""
        index = int(self.sources[key.sequence])
        length = len(self.recordings[index])
        if key.epoch is None:
            clips = self.sampling.clips_of(length, int(self._places[key.sequence]))
            shown = np.stack([self._show(index, clip) for clip in clips])
        else:
            generator = np.random.default_rng((self.seed, key.epoch, key.sequence))
            clip = self.sampling.draw(length, self.time, generator)
            shown = self._show(index, clip, generator)
        return torch.from_numpy(shown), int(self.recordings.labels[index])

    def _show(
        self, index: int, positions: np.ndarray, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        recording, sides = self.recordings[index], self.recordings.columns.get("side")
        left = sides is not None and sides[index] == 0
        frames = self.view.place(take(recording, positions), starting_pose(recording), left)
        if generator is not None:
            frames = self.augmentation(frames, self.view.about, generator)
        rows = (self.view.channels(frames) - self.mean) / self.deviation
        return rows.astype(np.float32, copy=False)

    def measure(self) -> None:
        """Set mean and deviation of the features; call it once."""
        picked = np.linspace(0, len(self) - 1, min(len(self), MEASURED)).round().astype(int)
        rows = torch.cat([self[Key(i)][0].flatten(0, 1) for i in picked.tolist()]).double()
        deviation = rows.std(dim=0, correction=0).clamp_min(1e-6)
        deviation[deviation <= 1e-6] = 1.0  # a constant feature
        self.mean, self.deviation = rows.mean(dim=0).float().numpy(), deviation.float().numpy()


def shuffled(
    data: Sequences, batch_size: int, workers: int, epoch: int, skip: int
) -> Iterator[Batch]:
    """Yield the batches of an epoch in random order, without the first ``skip``.

    An incomplete last batch is dropped, as its sequences would weigh more than others.
    """
    order = np.random.default_rng((data.seed, epoch)).permutation(len(data)).tolist()
    starts = range(skip * batch_size, len(order) - batch_size + 1, batch_size)
    return load(data, [order[start : start + batch_size] for start in starts], workers, epoch)


def in_order(data: Sequences, batch_size: int, workers: int) -> Iterator[Batch]:
    """Yield all sequences as shown at test, (batch, clips, n, features)."""
    order = list(range(len(data)))
    batches = [order[start : start + batch_size] for start in range(0, len(data), batch_size)]
    return load(data, batches, workers)
