"""The strategy ``checkpoint``: save the states where chunks begin, and run each chunk once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence
from irevrnn.ops import HALF
from irevrnn.strategies.chunks import Part

States = tuple[Tensor, Tensor]


class Checkpoint:
    """Save h and c of every block where chunks begin (equation ``eq:checkpoint``).

    Args:
        name: not used: nothing can go wrong.
    """

    def __init__(self, name: Callable[[int], str]) -> None:
        self.borders: list[Tensor] = []

    def begin(self, states: list[States], recurrences: list[Recurrence], record: bool) -> None:
        # Rounded between chunks, results in half precision would depend on the chunks' length.
        self.states = [(_wide(h), _wide(c)) for h, c in states]
        self.recurrences, self.record = recurrences, record

    def begin_chunk(self, part: Part) -> None:
        self.part = part
        if self.record:
            self.borders.append(torch.cat([s.flatten() for pair in self.states for s in pair]))

    def forward(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        out, *state = self._scan(z, self.states[number], number, self.part)
        self.states[number] = state[0], state[1]
        return out, state[0]

    def finals(self, dtype: torch.dtype) -> list[States]:
        return [(h.to(dtype), c.to(dtype)) for h, c in self.states]

    def saved(self) -> list[Tensor]:
        return [torch.stack(self.borders)]

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        (self.all_borders,) = saved
        self.recurrences = recurrences

    def leaves(self, chunk: int) -> list[States]:
        sizes = [recurrence.hidden_size for recurrence in self.recurrences for _ in "hc"]
        border = self.all_borders[chunk]
        batch = len(border) // sum(sizes)
        states = [
            state.view(batch, size).detach().requires_grad_()
            for state, size in zip(border.split([batch * n for n in sizes]), sizes, strict=True)
        ]
        return list(zip(states[::2], states[1::2], strict=True))

    def rebuild(
        self, chunk: int, part: Part, number: int, z: Tensor, state: States
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self._scan(z, state, number, part)

    def _scan(
        self, z: Tensor, state: States, number: int, part: Part
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.recurrences[number].scan(
            z, state, batch_sizes=part.batch_sizes, resets=part.resets
        )

    def finish(self) -> None:
        """Do nothing: nothing was consumed."""


def _wide(state: Tensor) -> Tensor:
    return state.float() if state.dtype in HALF else state
