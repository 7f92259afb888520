"""Whole recordings of signals as sequences, and batches of nearly equal lengths.

A recording is shown as ``(x - median) / size`` for each channel, where ``size`` is the 99th
percentile of ``abs(x - median)``: neither the offset and the gain of a device nor single spikes
matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.datasets.recordings import Recordings
from experiments.sequences import Key, Sequences, load
from experiments.train.task import Batch

PERCENTILE = 99
#: Batches whose sequences are sorted by length together: more need less padding, but put the same
#: recordings into the same batch again and again.
POOL = 16


@dataclass(eq=False)
class SignalDataset(Sequences):
    """Recordings, each a sequence (steps, channels) float32 with its label.

    Attributes:
        recordings: the whole data set.
        chosen: indices of the recordings to use.
        flip: probability of reversing the sign of all channels, in training.
        scale: the sequence is larger or smaller by up to that share, in training.
        seed: that of all draws, which depend on it, the epoch and the recording alone.
    """

    recordings: Recordings
    chosen: np.ndarray
    flip: float
    scale: float
    seed: int

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def lengths(self) -> np.ndarray:
        """Return the steps of each sequence, (len,) int64."""
        return self.recordings.lengths[self.chosen]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index = int(self.chosen[key.sequence])
        shown = normalised(self.recordings[index])
        if key.epoch is not None:
            generator = np.random.default_rng((self.seed, key.epoch, key.sequence))
            sign = -1 if generator.random() < self.flip else 1
            shown *= np.float32(sign * (1 + generator.uniform(-self.scale, self.scale)))
        return torch.from_numpy(shown), int(self.recordings.labels[index])


def normalised(frames: np.ndarray) -> np.ndarray:
    """Return frames, (steps, channels), without offset and of size 1; a constant channel is 0."""
    centred = frames - np.median(frames, axis=0)
    size = np.percentile(np.abs(centred), PERCENTILE, axis=0)
    # A channel that is constant but for a few spikes has the size of its highest spike.
    size = np.where(size > 0, size, np.abs(centred).max(axis=0))
    return (centred / np.where(size > 0, size, 1)).astype(np.float32)


def longest_first(recordings: Recordings, chosen: np.ndarray) -> np.ndarray:
    """Return the chosen recordings from the longest to the shortest."""
    return chosen[np.argsort(-recordings.lengths[chosen], kind="stable")]


def bucketed(
    data: Sequences, batch_size: int, bound: int | None, workers: int, epoch: int,
    places: range,
) -> Iterator[Batch]:  # fmt: skip
    """Yield the batches of an epoch (:func:`batches_of_epoch`) at these places."""
    batches = batches_of_epoch(data, batch_size, bound, epoch)[places.start : places.stop]
    return load(data, batches, workers, epoch)


def in_order(data: Sequences, batch_size: int, bound: int | None, workers: int) -> Iterator[Batch]:
    """Yield all sequences as shown at test; they should be in :func:`longest_first` order."""
    batches = _divided(list(range(len(data))), data.lengths, batch_size, bound)
    return load(data, batches, workers)


def batches_of_epoch(
    data: Sequences, batch_size: int, bound: int | None, epoch: int
) -> list[list[int]]:
    """Return the sequences of each batch, in random order but of nearly equal lengths.

    Sequences are shuffled, sorted by length within pools of ``POOL`` batches, and divided; then the
    batches are shuffled. It depends on seed and epoch alone. Without a ``bound``, the sequences
    that fill no batch are left out, others in each epoch. With one, a batch has at most that many
    steps, padding included, or a single sequence; batches of long ones are then smaller.
    """
    generator = np.random.default_rng((data.seed, epoch))
    order = generator.permutation(len(data))
    if bound is None:
        order = order[: len(order) - len(order) % batch_size]
    lengths, batches = data.lengths, []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        ordered = pool[np.argsort(-lengths[pool], kind="stable")].tolist()
        batches += _divided(ordered, lengths, batch_size, bound)
    return [batches[index] for index in generator.permutation(len(batches))]


def _divided(
    ordered: list[int], lengths: np.ndarray, batch_size: int, bound: int | None
) -> list[list[int]]:
    """Divide sequences, the longest first, into batches of at most ``bound`` padded steps."""
    batches, start = [], 0
    while start < len(ordered):
        count = batch_size
        if bound is not None:
            count = max(1, min(count, bound // int(lengths[ordered[start]])))
        batches.append(ordered[start : start + count])
        start += count
    return batches
