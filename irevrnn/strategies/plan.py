"""How a strategy runs: :class:`Plan`, and the length of chunks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irevrnn.kernels.ops import SEGMENT

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


@dataclass(frozen=True)
class Plan:
    """How a strategy runs, and what that costs if a budget has led to it.

    Attributes:
        memory: the strategy.
        chunk: steps in a chunk; 0 for the strategies that run layer by layer.
        checkpoints: that ``checkpoint`` keeps at once; 0 for one at the beginning of every chunk.
        most_bits: the most bytes of bits that ``reversible`` may store; None for any number.
        graph: the bytes of a chunk's graph, if there is a budget to meet; else 0.
        saved: bytes between forward and backward.
        peak: bytes at the largest moment of the two.
    """

    memory: str
    chunk: int = 0
    checkpoints: int = 0
    most_bits: int | None = None
    graph: int = 0
    saved: int = 0
    peak: int = 0


def chunk_length(
    memory: str, steps: int, batch: int, hidden: int, numbers: int = CHUNK_NUMBERS
) -> int:
    """Return the steps of a chunk of about this many numbers (equation ``eq:chunk``).

    It is whole segments, whose number does not depend on T; but sqrt(T) steps at least for
    ``checkpoint``, so that it keeps no more states than a chunk has steps.
    """
    length = max(SHORTEST, numbers // max(1, batch * hidden) // SEGMENT * SEGMENT)
    return max(length, math.isqrt(steps - 1) + 1) if memory == "checkpoint" else length
