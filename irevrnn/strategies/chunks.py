"""Cut a sequence into chunks of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from irevrnn.sequences import Packing
from irevrnn.strategies.rules import SEGMENT

#: Numbers of one layer's output in a chunk of ``reversible``, whose length does not depend on T.
CHUNK_NUMBERS = 2**18
#: In shorter chunks of ``checkpoint`` the calls of operators take most of the time.
SHORTEST_CHECKPOINT = 64


def chunk_length(memory: str, steps: int, batch: int, hidden: int) -> int:
    """Return the steps of a chunk.

    About sqrt(T) for ``checkpoint``, which minimises what is saved and rebuilt; else whole
    segments, whose number does not depend on T.
    """
    if memory == "checkpoint":
        return max(SHORTEST_CHECKPOINT, math.isqrt(steps - 1) + 1)
    return max(1, CHUNK_NUMBERS // max(1, batch * hidden) // SEGMENT) * SEGMENT


@dataclass(frozen=True)
class Part:
    """A chunk of steps.

    Attributes:
        begin: its first step.
        rows: the rows of x that belong to it.
        packing: of these rows, if they are packed.
        ended: the sequences that end in it; all of them if they have one length.
        ends_some: whether a sequence ends in it.
    """

    begin: int
    rows: slice
    packing: Packing | None
    ended: Tensor | slice
    ends_some: bool

    @property
    def batch_sizes(self) -> Tensor | None:
        return None if self.packing is None else self.packing.batch_sizes


def parts(length: int, x: Tensor, batch_sizes: Tensor | None) -> Iterator[Part]:
    """Cut x into chunks of ``length`` steps, the last of which may be shorter."""
    total = x.shape[0] if batch_sizes is None else len(batch_sizes)
    packing = None if batch_sizes is None else Packing.of(batch_sizes, x.device)
    for begin in range(0, total, length):
        steps = slice(begin, min(total, begin + length))
        if packing is None:
            yield Part(begin, steps, None, slice(None), steps.stop == total)
        else:
            rows, part = packing.part(steps)
            yield Part(begin, rows, part, part.ended, len(part.ended) > 0)
