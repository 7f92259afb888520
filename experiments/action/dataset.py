"""Recordings as the sequences that a classifier trains on: one Dataset for all data sets.

What is drawn at random for a sequence depends on the seed, the epoch and the number of the sequence
alone. So it is the same for any number of DataLoader workers, and a resumed run goes on to the same
bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.action.augment import Augmentation
from experiments.action.sampling import Sampling, take
from experiments.action.views import View, starting_pose
from experiments.datasets.recordings import Recordings
from experiments.train.task import Batch

#: Recordings that mean and deviation of the features are taken from, at most.
MEASURED = 500


class Key(NamedTuple):
    """Which sequence of a :class:`SequenceDataset`: in training (epoch given) a random variant."""

    sequence: int
    epoch: int | None = None


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of each feature, (F,) float32, of the training data."""

    mean: np.ndarray
    deviation: np.ndarray


class SequenceDataset(Dataset[tuple[Tensor, int]]):
    """Sequences made of some recordings.

    Args:
        recordings: of the whole data set.
        chosen: indices of the recordings to use.
        sampling: which frames of them.
        view: what is made of these.
        augmentation: how training changes them.
        time: how training stretches time, see :mod:`experiments.action.sampling`.
        seed: of all that is random.

    Attributes:
        scaling: subtracted from the features and divided by; None before :meth:`measure`.
        sources: (len,) int64, the recording that each sequence is part of.
    """

    def __init__(
        self,
        recordings: Recordings,
        chosen: np.ndarray,
        sampling: Sampling,
        view: View,
        augmentation: Augmentation,
        time: float,
        seed: int,
        scaling: Scaling | None = None,
    ) -> None:
        self.recordings = recordings
        self.sampling = sampling
        self.view = view
        self.augmentation = augmentation
        self.time = time
        self.seed = seed
        self.scaling = scaling
        lengths = recordings.lengths[chosen]
        counts = [sampling.sequences(length) for length in lengths.tolist()]
        self.sources = np.repeat(chosen, counts)
        self._places = np.concatenate([np.arange(count) for count in [0, *counts]])

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def labels(self) -> np.ndarray:
        """(len,) int64."""
        return self.recordings.labels[self.sources]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """A sequence and its label.

        Returns:
            (n, features) float32 in training, (clips, n, features) otherwise; and the label.
        """
        index = int(self.sources[key.sequence])
        frames = self.recordings[index]
        label = int(self.recordings.labels[index])
        if key.epoch is None:
            positions = self.sampling.clips_of(len(frames), int(self._places[key.sequence]))
            clips = [self._show(index, frames, clip) for clip in positions]
            return torch.from_numpy(np.stack(clips)), label
        generator = np.random.default_rng((self.seed, key.epoch, key.sequence))
        positions = self.sampling.draw(len(frames), self.time, generator)
        return torch.from_numpy(self._show(index, frames, positions, generator)), label

    def _show(
        self,
        index: int,
        whole: np.ndarray,
        positions: np.ndarray,
        generator: np.random.Generator | None = None,
    ) -> np.ndarray:
        sides = self.recordings.columns.get("side")
        left = sides is not None and sides[index] == 0
        frames = self.view.place(take(whole, positions), starting_pose(whole), left)
        if generator is not None:
            frames = self.augmentation(frames, self.view.about, generator)
        rows = self.view.channels(frames)
        if self.scaling is not None:
            rows = (rows - self.scaling.mean) / self.scaling.deviation
        return rows.astype(np.float32, copy=False)

    def measure(self) -> Scaling:
        """Take mean and deviation of the features from these recordings, and use them."""
        picked = np.linspace(0, len(self) - 1, min(len(self), MEASURED)).round().astype(int)
        rows = torch.cat([self[Key(i)][0].flatten(0, 1) for i in picked.tolist()]).double()
        deviation = rows.std(dim=0, correction=0).clamp_min(1e-6)
        deviation[deviation <= 1e-6] = 1.0  # a feature that is always the same
        self.scaling = Scaling(
            rows.mean(dim=0).float().numpy(), deviation.float().numpy()
        )  # fmt: skip
        return self.scaling


# --- batches ------------------------------------------------------------------------------------


def shuffled(
    data: SequenceDataset, batch_size: int, workers: int, epoch: int, skip: int
) -> Iterator[Batch]:
    """The batches of an epoch, in random order, without the first ``skip``.

    An incomplete last batch is left out: its few sequences would weigh more than others, and
    another shuffle shows them in the next epoch.
    """
    order = np.random.default_rng((data.seed, epoch)).permutation(len(data))
    batches = [
        [Key(int(sequence), epoch) for sequence in order[start : start + batch_size]]
        for start in range(skip * batch_size, len(order) - batch_size + 1, batch_size)
    ]
    return _load(data, batches, workers)


def in_order(data: SequenceDataset, batch_size: int, workers: int) -> Iterator[Batch]:
    """All sequences as they are shown at test, clip by clip: (batch, clips, n, features)."""
    batches = [
        [Key(sequence) for sequence in range(start, min(start + batch_size, len(data)))]
        for start in range(0, len(data), batch_size)
    ]
    return _load(data, batches, workers)


def _load(data: SequenceDataset, batches: list[list[Key]], workers: int) -> Iterator[Batch]:
    # Without a generator of its own, the loader would draw from PyTorch's each time that a run is
    # resumed, and so change what dropout draws.
    return iter(
        DataLoader(
            data, batch_sampler=batches, num_workers=workers, collate_fn=collate,
            generator=torch.Generator(),
        )
    )  # fmt: skip


def collate(items: list[tuple[Tensor, int]]) -> Batch:
    """Make a batch; sequences of different lengths become a pair (padded sequences, lengths).

    The last frame is repeated to fill up, behind the end that a classifier reads it to: in
    evaluation mode a sequence is classified as it would be alone.
    """
    sequences = [sequence for sequence, _ in items]
    labels = torch.tensor([label for _, label in items])
    lengths = torch.tensor([sequence.shape[-2] for sequence in sequences])
    longest = int(lengths.max())
    if (lengths == longest).all():
        return torch.stack(sequences), labels
    padded = [_fill_up(sequence, longest) for sequence in sequences]
    return (torch.stack(padded), lengths), labels


def _fill_up(sequence: Tensor, length: int) -> Tensor:
    missing = length - sequence.shape[-2]
    return torch.cat(
        [sequence, sequence[..., -1:, :].expand(*sequence.shape[:-2], missing, -1)], -2
    )
