"""The interface of the strategies of a whole stack: :class:`Strategy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.strategies.chunks import Part


class Strategy(Protocol):
    """A strategy: it saves something of the forward pass and rebuilds a chunk from that."""

    def begin(
        self, states: list[State], recurrences: list[Recurrence], record: bool, chunks: int
    ) -> None:
        """Begin the forward pass; without ``record`` no backward pass will follow."""

    def begin_chunk(self, part: Part) -> None:
        """Begin a chunk."""

    def forward(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Run the recurrence of block ``number`` over the chunk; return ``out`` and ``h_n``."""

    def note_output(self, chunk: int, output: Tensor) -> None:
        """Take note of what the stack returned for a chunk, in the forward or backward pass."""

    def finals(self, dtype: torch.dtype) -> list[State]:
        """Return h_n and c_n of every block, (B, H)."""

    def saved(self) -> list[Tensor]:
        """Return all that is saved for the backward pass."""

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        """Begin the backward pass from what :meth:`saved` returned."""

    def restore(self, chunk: int, run: Callable[[int], None]) -> None:
        """Find the states where a chunk begins; ``run(i)`` takes chunk i forward once more."""

    def leaves(self, chunk: int) -> list[State]:
        """Return (h, c) of every block where the chunk begins, as leaves of its graph."""

    def rebuild(
        self, chunk: int, part: Part, number: int, z: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``out``, ``h_n`` and ``c_n`` of a block over the chunk, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if a chunk was not reconstructed exactly."""
