"""The recurrence of a block: its weights and nonlinearities."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from irevrnn.functional import scan_checked

#: h and c of a block, (B, H) each.
State = tuple[Tensor, Tensor]


class Recurrence(NamedTuple):
    """A recurrence: u (H,), a and b (R, H), and the names of g and f."""

    u: Tensor
    a: Tensor
    b: Tensor
    activation: str
    coupling_activation: str

    @classmethod
    def of(cls, block: Any) -> Recurrence:
        """Return the recurrence of a block."""
        return cls(
            block.recurrent_weight,
            block.coupling_a,
            block.coupling_b,
            block.activation,
            block.coupling_activation,
        )

    @property
    def hidden_size(self) -> int:
        """The number of units."""
        return len(self.u)

    def scan(
        self,
        z: Tensor,
        state: State,
        memory: str = "recompute",
        batch_sizes: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence over z from a state (h, c); see :func:`irevrnn.scan`."""
        weights, options = self[:3], self[3:]
        return scan_checked(z, (*state, *weights), options, memory, batch_sizes, resets)
