"""How a strategy runs: :class:`Plan`, the length of chunks, and the forms of states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from torch import Tensor

from irevrnn.recurrences.protocol import State

#: Numbers of one layer's output in a chunk: its graph, some eight tensors of this size for each
#: block, is most of the peak. In shorter chunks a step takes up to 1.3 times as long.
CHUNK_NUMBERS = 2**16
#: The same for a budget that allows it: longer chunks outgrow the caches of a CPU.
MOST_NUMBERS = 2**18
#: The fewest steps of a chunk: in shorter ones the calls of operators take most of the time.
SHORTEST = 64
#: CHUNK_NUMBERS and SHORTEST where operators take all recurrences, gated blocks, through a chunk at
#: once: four of 64 units then take a million steps in less than a megabyte, and about twice as long
#: as in the long chunks that a budget allows.
COMPILED_NUMBERS, COMPILED_SHORTEST = 4608, 48
#: The state of each recurrence; None, or no tensors, where it begins with one of its own.
States: TypeAlias = list[State | None]


def flat(states: Iterable[State | None]) -> list[Tensor]:
    """Return the tensors of all states."""
    return [x for state in states for x in state or ()]


def nested(tensors: Iterator[Tensor], counts: Iterable[int]) -> list[State]:
    """Group tensors into states of ``counts`` tensors each; invert :func:`flat`."""
    return [tuple(islice(tensors, count)) for count in counts]


def leaf(x: Tensor) -> Tensor:
    """Return x as a leaf of a new graph; it requires a gradient if its dtype allows one."""
    return x.detach().requires_grad_(x.is_floating_point() or x.is_complex())


@dataclass(frozen=True)
class Plan:
    """How a strategy runs, and what that costs if a budget has led to it.

    Attributes:
        memory: the strategy.
        chunk: steps in a chunk; 0 for the strategies that run layer by layer.
        checkpoints: that ``checkpoint`` keeps at once; 0 for one at the beginning of every chunk.
        most_bits: the most bytes of bits that ``reversible`` may store; None for any number.
        graph: bytes of a chunk's graph, if there is a budget.
        saved, peak: bytes between forward and backward, and the most at once in the two passes.
    """

    memory: str
    chunk: int = 0
    checkpoints: int = 0
    most_bits: int | None = None
    graph: int = 0
    saved: int = 0
    peak: int = 0


def chunk_length(
    memory: str, steps: int, batch: int, hidden: int, compiled: bool, numbers: int | None = None
) -> int:
    """Return the steps of a chunk of about this many numbers (equation ``eq:chunk``).

    It does not depend on T; but it is sqrt(T) steps at least for ``checkpoint``, which then keeps
    no more states than a chunk has steps.
    """
    usual = (COMPILED_NUMBERS, COMPILED_SHORTEST) if compiled else (CHUNK_NUMBERS, SHORTEST)
    length = max(usual[1], (numbers or usual[0]) // max(1, batch * hidden))
    return max(length, math.isqrt(steps - 1) + 1) if memory == "checkpoint" else length


def add_bits(bits: State, more: Tensor | None) -> State:
    """Add bits that the input chose to forget, a scalar; none are an empty tuple."""
    if more is None:
        return bits
    return (bits[0] + more if bits else more,)
