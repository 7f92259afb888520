"""Sequences of recordings, in folds and in batches: what movements and signals share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.train.task import Batch

#: Seed of the draw of what is set aside for validation.
SPLIT_SEED = 2023


@dataclass(frozen=True)
class Fold:
    """Indices of recordings, (n,) int64 each. Whether parts share subjects is up to the split."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


class Key(NamedTuple):
    """An index into :class:`Sequences`; with an epoch, a random variant for training."""

    sequence: int
    epoch: int | None = None


class Sequences(Dataset[tuple[Tensor, Any]]):
    """Sequences with their labels, indexed by a :class:`Key`; ``seed`` is that of all draws."""

    seed: int

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def lengths(self) -> np.ndarray:
        """Return the steps of each sequence, (len,) int64, where they differ."""
        raise NotImplementedError


def load(
    data: Sequences, batches: list[list[int]], workers: int, epoch: int | None = None
) -> Iterator[Batch]:
    """Yield batches of these sequences, as an epoch shows them, made by ``workers`` processes."""
    keys = [[Key(sequence, epoch) for sequence in batch] for batch in batches]
    # Without a generator of its own, the loader would draw from PyTorch's when a run is resumed,
    # and change what dropout draws.
    return iter(
        DataLoader(
            data, batch_sampler=keys, num_workers=workers, collate_fn=collate,
            generator=torch.Generator(), worker_init_fn=_leave_signals,
        )
    )  # fmt: skip


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and termination to the main process, which writes a checkpoint and ends this."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def collate(items: list[tuple[Tensor, Any]]) -> Batch:
    """Make a batch; sequences of different lengths become a pair (padded sequences, lengths).

    The last frame is repeated as padding, which a classifier does not read.
    """
    sequences = [sequence for sequence, _ in items]
    labels = torch.stack([torch.as_tensor(label) for _, label in items])
    time = max(-2, -sequences[0].dim())
    lengths = torch.tensor([sequence.shape[time] for sequence in sequences])
    longest = int(lengths.max())
    if (lengths == longest).all():
        return torch.stack(sequences), labels
    steps = torch.arange(longest).minimum(lengths[:, None] - 1)
    padded = [one.index_select(time, own) for one, own in zip(sequences, steps, strict=True)]
    return (torch.stack(padded), lengths), labels
