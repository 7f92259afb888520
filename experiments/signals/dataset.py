"""Whole recordings of signals as sequences.

A recording is shown as ``(x - median) / size`` for each channel, where ``size`` is the 99th
percentile of ``abs(x - median)``: neither the offset and the gain of a device nor single spikes
matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.datasets.recordings import Recordings
from experiments.sequences import Key, Sequences

PERCENTILE = 99


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
