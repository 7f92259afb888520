"""The sizes that the cost of a strategy follows from: :class:`Workload`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from irevrnn.sequences import SequenceBatch


@dataclass(frozen=True)
class Workload:
    """The sizes of a forward and backward pass.

    Attributes:
        steps, batch, features: T, B and the features of the input.
        copied: whether the first block works on a copy of the input (another order of dimensions).
        return_sequence: whether the output of all steps is returned.
        own_states: whether the initial states are zeros that the stack makes.
        rows: of the input, if sequences have lengths of their own, of at most ``steps``.
        resets: how often a sequence's states are reset; None without a mask.
    """

    steps: int
    batch: int
    features: int
    copied: bool = False
    return_sequence: bool = True
    own_states: bool = True
    rows: int | None = None
    resets: int | None = None

    @classmethod
    def of(
        cls,
        batch: SequenceBatch,
        own_states: bool,
        return_sequence: bool,
        resets: Tensor | None = None,
    ) -> Workload:
        """Return the workload of an input."""
        return cls(
            steps=batch.steps,
            batch=batch.size,
            features=batch.x.shape[-1],
            copied=not batch.x.is_contiguous(),
            return_sequence=return_sequence,
            own_states=own_states,
            rows=None if batch.packing is None else len(batch.x),
            resets=None if resets is None else int(resets.sum()),
        )

    @property
    def real_steps(self) -> int:
        """The steps of all sequences together."""
        return self.steps * self.batch if self.rows is None else self.rows
