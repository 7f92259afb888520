"""Cut a sequence into chunks of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.packing import Steps

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
class Chunks(Sequence[Steps]):
    """The chunks of a sequence, each made when it is asked for.

    Nothing here grows with T, except the table of packed rows.

    Args:
        steps: all steps.
        length: of a chunk; the last may be shorter.
    """

    steps: Steps
    length: int

    def __len__(self) -> int:
        return math.ceil(self.steps.end / self.length)

    def __getitem__(self, index: Any) -> Any:
        begin = range(0, self.steps.end, self.length)[index]
        return self.steps.part(begin, min(self.steps.end, begin + self.length))
