"""The interface of the strategies of a whole stack: :class:`Strategy`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.strategies.chunks import Part


class Strategy(ABC):
    """A strategy: it saves something of the forward pass and rebuilds a chunk from that.

    Attributes:
        chunk, part: the one that runs forward: its number and where it is.
    """

    chunk = -1
    part: Part

    @abstractmethod
    def begin(
        self, states: list[State], recurrences: list[Recurrence], record: bool, chunks: int
    ) -> None:
        """Begin the forward pass; without ``record`` no backward pass will follow."""

    def begin_chunk(self, part: Part) -> None:
        """Begin a chunk."""
        self.part = part
        self.chunk += 1

    @abstractmethod
    def forward(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Run the recurrence of block ``number`` over the chunk; return ``out`` and ``h_n``."""

    def note_output(self, chunk: int, output: Tensor) -> None:
        """Take note of what the stack returned for a chunk, in the forward or backward pass.

        Unless overridden, what would differ from the forward pass is not noticed.
        """
        return None

    @abstractmethod
    def finals(self, dtype: torch.dtype) -> list[State]:
        """Return h_n and c_n of every block, (B, H)."""

    @abstractmethod
    def saved(self) -> list[Tensor]:
        """Return all that is saved for the backward pass."""

    @abstractmethod
    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        """Begin the backward pass from what :meth:`saved` returned."""

    def restore(self, chunk: int, run: Callable[[int], None]) -> None:
        """Find the states where a chunk begins; ``run(i)`` takes chunk i forward once more.

        Unless overridden, the chunk after this one left them there.
        """
        return None

    @abstractmethod
    def leaves(self) -> list[State]:
        """Return (h, c) of every block where the restored chunk begins, as leaves of its graph."""

    @abstractmethod
    def rebuild(
        self, chunk: int, part: Part, number: int, z: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``out``, ``h_n`` and ``c_n`` of a block over the chunk, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if a chunk was not reconstructed exactly.

        Unless overridden, nothing is checked.
        """
        return None
