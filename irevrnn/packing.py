"""Sequences of different length in one batch, packed as in PyTorch's ``PackedSequence``.

Step after step, the rows of the sequences that have that step stand behind one another; sequences
are sorted by length, the longest first. So there is no padding to compute, and what a layer maps
row by row needs to know nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the rows of packed sequences lie.

    Attributes:
        batch_sizes: (T,) int64 on the CPU: how many sequences have a step.
        sequences: (N,), the sequence of each row.
        ended: (E,), the sequences whose last row is among these; (B,) for the whole.
        last_rows: (E,), their last rows.
    """

    batch_sizes: Tensor
    sequences: Tensor
    ended: Tensor
    last_rows: Tensor

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> Packing:
        """The packing that ``batch_sizes`` (T,) describes."""
        sequences = _sequences(batch_sizes)
        ended = torch.arange(int(batch_sizes[0]))
        # Read backwards, the first row that belongs to a sequence.
        last_rows = len(sequences) - 1 - _first_occurrence(sequences.flip(0), len(ended))
        return cls(batch_sizes, sequences.to(device), ended.to(device), last_rows.to(device))

    def part(self, steps: slice) -> tuple[slice, Packing]:
        """Some of the steps: their rows, and how these are packed."""
        begin = int(self.batch_sizes[: steps.start].sum())
        sizes = self.batch_sizes[steps]
        rows = slice(begin, begin + int(sizes.sum()))
        inside = (self.last_rows >= rows.start) & (self.last_rows < rows.stop)
        part = Packing(
            sizes, self.sequences[rows], self.ended[inside], self.last_rows[inside] - rows.start
        )
        return rows, part

    def reversal(self) -> Tensor:
        """(N,): for each row, the row that takes its place when each sequence is turned round."""
        starts = (self.batch_sizes.cumsum(0) - self.batch_sizes).to(self.sequences.device)
        steps = torch.repeat_interleave(torch.arange(len(self.batch_sizes)), self.batch_sizes).to(
            self.sequences.device
        )
        lengths = torch.bincount(self.sequences)
        return starts[lengths[self.sequences] - 1 - steps] + self.sequences


def _sequences(batch_sizes: Tensor) -> Tensor:
    starts = batch_sizes.cumsum(0) - batch_sizes
    return torch.arange(int(batch_sizes.sum())) - torch.repeat_interleave(starts, batch_sizes)


def _first_occurrence(values: Tensor, count: int) -> Tensor:
    """The first index of each of 0, ..., count - 1."""
    order = torch.arange(len(values))
    return torch.full((count,), len(values)).scatter_reduce(0, values, order, "amin")
