"""Sequences, in folds and in batches: what movements, signals and texts share."""

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
#: Batches whose sequences are sorted by length together: more need less padding, but put the same
#: recordings into the same batch again and again.
POOL = 16


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


def bucketed(
    data: Sequences, batch_size: int, bound: int | None, workers: int, epoch: int,
    places: range,
) -> Iterator[Batch]:  # fmt: skip
    """Yield the batches of an epoch (:func:`batches_of_epoch`) at these places."""
    batches = batches_of_epoch(data, batch_size, bound, epoch)[places.start : places.stop]
    return load(data, batches, workers, epoch)


def in_order(data: Sequences, batch_size: int, bound: int | None, workers: int) -> Iterator[Batch]:
    """Yield all sequences as shown at test; the longest should come first."""
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
