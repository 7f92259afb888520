"""The strategy ``checkpoint``: save the states where chunks begin, and run each chunk once more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.functional import scan
from irevrnn.ops import HALF
from irevrnn.strategies.rules import RECURRENCE

Parameters = dict[str, Tensor]
States = tuple[Tensor, Tensor]


class Checkpoint:
    """Save h and c of every layer where chunks begin (equation ``eq:checkpoint``).

    Args:
        activation, coupling_activation: names of g and f.
    """

    def __init__(self, activation: str, coupling_activation: str) -> None:
        self.nonlinearities = (activation, coupling_activation)

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        if h_0.dtype in HALF:  # rounded between chunks, results would depend on their length
            h_0, c_0 = h_0.float(), c_0.float()
        self.states = list(zip(h_0.unbind(), c_0.unbind(), strict=True))
        self.borders: list[Tensor] = []
        self.record = record

    def begin_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        self.batch_sizes = batch_sizes
        if self.record:
            self.borders.append(torch.stack([torch.stack(pair) for pair in self.states]))

    def forward(self, index: int, z: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        out, h, c = self._scan(z, self.states[index], p, self.batch_sizes)
        self.states[index] = h, c
        return out, h

    def finals(self, dtype: torch.dtype) -> States:
        h, c = (torch.stack(states).to(dtype) for states in zip(*self.states, strict=True))
        return h, c

    def saved(self) -> list[Tensor]:
        return [torch.stack(self.borders)]

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        (self.all_borders,) = saved

    def leaves(self, chunk: int) -> list[States]:
        border = self.all_borders[chunk]
        return [
            (h.detach().requires_grad_(), c.detach().requires_grad_()) for h, c in border.unbind()
        ]

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: States, p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return self._scan(z, state, p, batch_sizes)

    def _scan(
        self, z: Tensor, state: States, p: Parameters, batch_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        u, a, b = (p[name] for name in RECURRENCE)
        return scan(z, *state, u, a, b, *self.nonlinearities, batch_sizes=batch_sizes)

    def finish(self) -> None:
        """Do nothing: nothing was consumed."""
