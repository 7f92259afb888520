"""The interface of the strategies that run chunk by chunk: :class:`Strategy`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, State
from irevrnn.strategies.plan import Plan

#: The state of each recurrence; None, or no tensors, where it begins with one of its own.
States: TypeAlias = list[State | None]


def flat(states: Iterable[State | None]) -> list[Tensor]:
    """Return the tensors of all states."""
    return [x for state in states for x in state or ()]


def leaf(x: Tensor) -> Tensor:
    """Return x as a leaf of a new graph, which takes a gradient if numbers like it can."""
    return x.detach().requires_grad_(x.is_floating_point() or x.is_complex())


class Strategy(ABC):
    """A strategy in one pass, forward or backward: it saves little, and rebuilds chunks from that.

    Args:
        recurrences: of the stack.
        plan: how it runs.
        chunks: their number.

    Attributes:
        chunk, steps: the one that runs: its number, and its steps.
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
        """Return what is saved for the backward pass: tensors in nested lists, tuples, dicts."""

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
