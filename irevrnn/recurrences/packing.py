"""Which steps of which sequences a recurrence runs over: :class:`Steps` and :class:`Packing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the rows of packed sequences lie.

    Attributes:
        batch_sizes: (T,) int64 on the CPU, the number of sequences that have each step.
        sequences: (N,), the sequence that each row belongs to.
        ended: (E,), the sequences whose last row is among these; (B,) for a complete input.
        last_rows: (E,), the last rows of these sequences.
    """

    batch_sizes: Tensor
    sequences: Tensor
    ended: Tensor
    last_rows: Tensor

    @cached_property
    def _ends(self) -> Tensor:
        """(T,), the row behind those of each step; once for all parts."""
        return self.batch_sizes.cumsum(0)

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> Packing:
        """Return the packing that ``batch_sizes`` (T,) describes."""
        starts = batch_sizes.cumsum(0) - batch_sizes
        rows = torch.arange(int(batch_sizes.sum()), device="cpu")
        sequences = rows - torch.repeat_interleave(starts, batch_sizes)
        ended = torch.arange(int(batch_sizes[0]), device="cpu")
        last_rows = torch.zeros_like(ended).scatter_reduce(0, sequences, rows, "amax")
        return cls(batch_sizes, sequences.to(device), ended.to(device), last_rows.to(device))

    @property
    def steps(self) -> Tensor:
        """(N,), the step of each row, on the device of the rows."""
        return torch.repeat_interleave(self.batch_sizes).to(self.sequences.device)

    def part(self, steps: slice) -> tuple[slice, Packing]:
        """Return the rows of some of the steps, and how these are packed."""
        begin = int(self._ends[steps.start - 1]) if steps.start else 0
        sizes = self.batch_sizes[steps]
        rows = slice(begin, begin + int(sizes.sum()))
        inside = (self.last_rows >= rows.start) & (self.last_rows < rows.stop)
        last_rows = self.last_rows[inside] - rows.start
        return rows, Packing(sizes, self.sequences[rows], self.ended[inside], last_rows)

    def reversal(self) -> Tensor:
        """Return (N,), the row that takes each row's place when every sequence is reversed."""
        lengths = torch.bincount(self.sequences)
        starts = (self._ends - self.batch_sizes).to(lengths.device)
        return starts[lengths[self.sequences] - 1 - self.steps] + self.sequences


@dataclass(frozen=True)
class Steps:
    """Consecutive steps of a batch of sequences: all of them, or a chunk.

    Attributes:
        begin, end: the first step, and the one after the last.
        batch: B, the sequences of the whole batch.
        rows: the rows of the input that belong to them.
        packing: of these rows, if they are packed.
        resets: of these rows, (T, B) or (N,) bool, or None.
        ends_some: whether a sequence ends in them.
    """

    begin: int
    end: int
    batch: int
    rows: slice
    packing: Packing | None = None
    resets: Tensor | None = None
    ends_some: bool = True

    @property
    def batch_sizes(self) -> Tensor | None:
        """(T,), the number of sequences that have each step, if they are packed."""
        return None if self.packing is None else self.packing.batch_sizes

    @property
    def ended(self) -> Tensor | slice:
        """The sequences that end in them; all, if they have one length."""
        return slice(None) if self.packing is None else self.packing.ended

    @property
    def begins_anew(self) -> Tensor | None:
        """Which sequences the first step resets, of those that have it."""
        if self.resets is None or self.resets.dim() == 2:
            return None if self.resets is None else self.resets[0]
        return self.resets[: self.batch if self.packing is None else self.packing.batch_sizes[0]]

    def part(self, begin: int, end: int) -> Steps:
        """Return some of the steps, counted from the first of these; all sequences begin at 0."""
        rows, packing, last = slice(begin, end), None, end == self.end - self.begin
        if self.packing is not None:
            rows, packing = self.packing.part(rows)
            last = len(packing.ended) > 0
        resets = None if self.resets is None else self.resets[rows]
        return Steps(begin, end, self.batch, rows, packing, resets, last)

    def pieces(self) -> Iterator[Steps]:
        """Cut the steps where sequences end or begin anew; all sequences of a piece are as long."""
        resets, packing, cuts = self.resets, self.packing, {0}
        if packing is not None:
            cuts |= {1 + step for step in packing.batch_sizes.diff().nonzero().flatten().tolist()}
        if resets is not None:
            at = resets.any(1).nonzero().flatten() if packing is None else packing.steps[resets]
            cuts |= {*at.tolist()}
        row = 0
        for first, last in pairwise([*sorted(cuts), self.end - self.begin]):
            size = self.batch if packing is None else int(packing.batch_sizes[first])
            rows = slice(row, row + (last - first) * (1 if packing is None else size))
            anew = None if resets is None else resets[rows]
            yield Steps(first, last, size, rows, resets=anew)
            row = rows.stop
