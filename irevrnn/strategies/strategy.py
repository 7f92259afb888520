"""The interface of the strategies that run chunk by chunk: :class:`Strategy`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, Recurrence, State

#: The state of each recurrence; None where it begins with one of its own.
States: TypeAlias = list[State | None]


def flat(states: States) -> list[Tensor]:
    """Return the tensors of all states."""
    return [x for state in states if state is not None for x in state]


class Strategy(ABC):
    """A strategy: it saves something of the forward pass and rebuilds a chunk from that.

    Args:
        recurrences: of the stack.

    Attributes:
        chunk, steps: the one that runs forward: its number, and its steps.
        layout: how what is saved is laid out; that of the forward pass in the backward pass.
    """

    steps: Steps
    layout: Any = None

    def __init__(self, recurrences: Sequence[Recurrence]) -> None:
        self.recurrences = recurrences
        self.chunk = -1

    @abstractmethod
    def begin(self, states: States, record: bool, chunks: int) -> None:
        """Begin the forward pass; without ``record`` no backward pass will follow."""

    def begin_chunk(self, steps: Steps) -> None:
        """Begin a chunk."""
        self.steps = steps
        self.chunk += 1

    @abstractmethod
    def forward(self, number: int, drive: Drive) -> tuple[Tensor, State]:
        """Run recurrence ``number`` over the chunk; return h, and the state after the last step."""

    def note_output(self, chunk: int, output: Tensor) -> None:
        """Take note of what the stack returned for a chunk, in the forward or backward pass.

        Unless overridden, what would differ from the forward pass is not noticed.
        """
        return None

    @abstractmethod
    def finals(self, dtype: torch.dtype) -> list[State]:
        """Return the states of every recurrence after the last step."""

    @abstractmethod
    def saved(self) -> list[Tensor]:
        """Return all that is saved for the backward pass."""

    @abstractmethod
    def begin_backward(self, saved: Sequence[Tensor], chunks: int) -> None:
        """Begin the backward pass from what :meth:`saved` returned."""

    def restore(self, chunk: int, run: Callable[[int], None]) -> None:
        """Find the states where a chunk begins; ``run(i)`` takes chunk i forward once more.

        Unless overridden, the chunk after this one left them there.
        """
        return None

    @abstractmethod
    def leaves(self) -> States:
        """Return the states where the restored chunk begins, as leaves of its graph."""

    @abstractmethod
    def rebuild(
        self, chunk: int, steps: Steps, number: int, drive: Drive, state: State | None
    ) -> tuple[Tensor, State]:
        """Return what :meth:`forward` does for a chunk, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if a chunk was not reconstructed exactly.

        Unless overridden, nothing is checked.
        """
        return None
