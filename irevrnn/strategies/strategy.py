"""How a strategy runs: :class:`Plan`, and :class:`Strategy` for those that run chunk by chunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, State

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
#: The same two where all recurrences are gated blocks, which operators take through a chunk at
#: once: a million steps of one sequence through four of 64 units then take little more than a
#: megabyte, and about twice as long as in the long chunks that a budget allows.
COMPILED_NUMBERS, COMPILED_SHORTEST = 6144, 48
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
        graph: the bytes of a chunk's graph, if there is a budget to meet; else 0.
        saved: bytes between forward and backward.
        peak: the most bytes that are alive at once in the two passes.
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

    It is whole segments, whose number does not depend on T; but sqrt(T) steps at least for
    ``checkpoint``, so that it keeps no more states than a chunk has steps. ``compiled`` tells
    whether operators take all recurrences through a chunk at once.
    """
    usual = (COMPILED_NUMBERS, COMPILED_SHORTEST) if compiled else (CHUNK_NUMBERS, SHORTEST)
    rows = (numbers or usual[0]) // max(1, batch * hidden)
    length = max(usual[1], rows // SEGMENT * SEGMENT)
    return max(length, math.isqrt(steps - 1) + 1) if memory == "checkpoint" else length


def add_bits(bits: State, more: Tensor | None) -> State:
    """Add bits that the input chose to forget, a scalar; none are an empty tuple."""
    if more is None:
        return bits
    return (bits[0] + more if bits else more,)


class Strategy(ABC):
    """A strategy in one pass, forward or backward, over a number of chunks.

    It saves little, and rebuilds chunks from that. ``chunk`` is the number of the one that runs.
    """

    chunk: int
    steps: Steps

    def __init__(self, recurrences: Sequence[Any], plan: Plan, chunks: int) -> None:
        self.recurrences, self.plan, self.chunks = recurrences, plan, chunks

    @abstractmethod
    def begin(self, states: list[State], record: bool) -> None:
        """Begin the forward pass; without ``record`` no backward pass will follow."""

    def begin_chunk(self, chunk: int, steps: Steps) -> None:
        """Begin a chunk of the forward pass."""
        self.chunk, self.steps = chunk, steps

    @abstractmethod
    def forward(self, number: int, drive: Drive) -> tuple[Tensor, State]:
        """Run recurrence ``number`` over the chunk; return h, and the state after the last step."""

    def note(self, output: Tensor, after: Sequence[Tensor] | None = None) -> None:
        """Take note of the chunk's output, and in the backward pass of the states after it."""
        return None

    @abstractmethod
    def finals(self, dtype: torch.dtype) -> list[State]:
        """Return the states of every recurrence after the last step."""

    @abstractmethod
    def record(self) -> Any:
        """Return what is saved for the backward pass, a tree of tensors."""

    @abstractmethod
    def begin_backward(self, record: Any) -> None:
        """Begin the backward pass from a record."""

    @abstractmethod
    def restore(self, chunk: int, run: Callable[[int], None]) -> list[State]:
        """Return the states where a chunk begins, as leaves of its graph.

        ``run(i)`` takes chunk i forward once more.
        """

    @abstractmethod
    def rebuild(self, number: int, drive: Drive, state: State) -> tuple[Tensor, State]:
        """Return what :meth:`forward` does, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if something differed from the forward pass."""
        return None
