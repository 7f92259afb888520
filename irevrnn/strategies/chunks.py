"""Cut a sequence into chunks of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from irevrnn.sequences import Packing
from irevrnn.strategies.rules import SEGMENT

#: Numbers of one layer's output in a chunk, unless it is of the least length or ``checkpoint`` has
#: to keep fewer states. The graph of a chunk is most of the peak: some eight tensors of this size
#: for each block. In shorter chunks the calls of operators take a larger part of the time.
CHUNK_NUMBERS = 2**16
#: The same for a budget that allows it. In longer chunks a step takes no less time on a CPU, whose
#: caches they outgrow; in those of :data:`CHUNK_NUMBERS`, up to 1.3 times as long.
MOST_NUMBERS = 2**18
#: The fewest steps of a chunk: in shorter ones the calls of operators take most of the time,
#: however many sequences there are.
SHORTEST = 64


def chunk_length(
    memory: str, steps: int, batch: int, hidden: int, numbers: int = CHUNK_NUMBERS
) -> int:
    """Return the steps of a chunk of about this many numbers (equation ``eq:chunk``).

    It is whole segments, whose number does not depend on T; but sqrt(T) steps at least for
    ``checkpoint``, so that it keeps no more states than a chunk has steps.
    """
    length = max(SHORTEST, numbers // max(1, batch * hidden) // SEGMENT * SEGMENT)
    return max(length, math.isqrt(steps - 1) + 1) if memory == "checkpoint" else length


@dataclass(frozen=True)
class Part:
    """A chunk of steps.

    Attributes:
        begin, end: its first step, and the one after its last.
        batch: B, the sequences of the whole batch.
        rows: the rows of x that belong to it.
        packing: of these rows, if they are packed.
        resets: of these rows, (T, B) or (N,), or None.
        ended: the sequences that end in it; if all have one length, all of them, in every chunk.
        ends_some: whether a sequence ends in it.
    """

    begin: int
    end: int
    batch: int
    rows: slice
    packing: Packing | None
    resets: Tensor | None
    ended: Tensor | slice
    ends_some: bool

    @property
    def batch_sizes(self) -> Tensor | None:
        return None if self.packing is None else self.packing.batch_sizes


class Parts(Sequence[Part]):
    """The chunks of a sequence, each made when it is asked for.

    Nothing here grows with T, except the table of packed rows.

    Args:
        length: steps of a chunk; the last may be shorter.
        x: (T, B, in), or (N, in) packed.
        batch_sizes: (T,), if x is packed.
        resets: (T, B) or (N,), or None.
    """

    def __init__(
        self, length: int, x: Tensor, batch_sizes: Tensor | None, resets: Tensor | None
    ) -> None:
        self.packing = None if batch_sizes is None else Packing.of(batch_sizes, x.device)
        self.batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        self.steps = len(x if batch_sizes is None else batch_sizes)
        self.length, self.resets = length, resets

    def __len__(self) -> int:
        return math.ceil(self.steps / self.length)

    def __getitem__(self, index: Any) -> Any:
        begin = range(0, self.steps, self.length)[index]
        steps = rows = slice(begin, min(self.steps, begin + self.length))
        inner: Packing | None = None
        ended: Tensor | slice = slice(None)
        ends_some = steps.stop == self.steps
        if self.packing is not None:
            rows, inner = self.packing.part(steps)
            ended, ends_some = inner.ended, len(inner.ended) > 0
        resets = None if self.resets is None else self.resets[rows]
        return Part(begin, steps.stop, self.batch, rows, inner, resets, ended, ends_some)
