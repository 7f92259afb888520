"""The forms an input may have, and the one form that a stack works on: time first, or packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irevrnn.packing import Packing


@dataclass(frozen=True)
class Batch:
    """An input as a stack takes it, and the way back to the form it came in.

    Attributes:
        x: (T, B, in), not always contiguous; or (N, in) packed.
        packing: of x, if it is packed.
        steps, size: T and B.
        batched: whether the input had a batch dimension.
        batch_first: whether that came first.
        packed: the packed input, if it is packed.
        padded: whether it came padded, with lengths.
    """

    x: Tensor
    packing: Packing | None
    steps: int
    size: int
    batched: bool
    batch_first: bool
    packed: PackedSequence | None = None
    padded: bool = False

    @classmethod
    def of(
        cls,
        input: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None,
        batch_first: bool,
    ) -> Batch:
        """Take an input that has been checked.

        Raises:
            ValueError: ``lengths`` do not fit.
            TypeError: they are no integers.
        """
        if isinstance(input, PackedSequence):
            packing = Packing.of(input.batch_sizes, input.data.device)
            steps, size = len(input.batch_sizes), int(input.batch_sizes[0])
            return cls(input.data, packing, steps, size, True, batch_first, input)
        if lengths is not None:
            counts = _checked_lengths(lengths, input, batch_first)
            packed = pack_padded_sequence(input, counts, batch_first, enforce_sorted=False)
            steps = input.shape[1 if batch_first else 0]
            packing = Packing.of(packed.batch_sizes, input.device)
            return cls(packed.data, packing, steps, len(counts), True, batch_first, packed, True)
        if input.dim() == 2:
            return cls(input.unsqueeze(1), None, len(input), 1, False, batch_first)
        x = input.transpose(0, 1) if batch_first else input
        return cls(x, None, x.shape[0], x.shape[1], True, batch_first)

    @property
    def batch_sizes(self) -> Tensor | None:
        """(T,), if packed."""
        return None if self.packing is None else self.packing.batch_sizes

    def sort_states(self, states: Tensor) -> Tensor:
        """Bring (L, B, H) into the order of the rows."""
        order = None if self.packed is None else self.packed.sorted_indices
        return states if order is None else states.index_select(1, order)

    def give_back(
        self, output: Tensor, h_n: Tensor, c_n: Tensor, return_sequence: bool
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Bring results into the form of the input."""
        order = None if self.packed is None else self.packed.unsorted_indices
        if order is not None:
            h_n, c_n = h_n.index_select(1, order), c_n.index_select(1, order)
        if not return_sequence:
            output = output if order is None else output.index_select(0, order)
        elif self.packed is not None:
            return self._repack(output), (h_n, c_n)
        elif self.batch_first and self.batched:
            output = output.transpose(0, 1)
        if not self.batched:
            output, h_n, c_n = (y.squeeze(-2) for y in (output, h_n, c_n))
        return output, (h_n, c_n)

    def _repack(self, data: Tensor) -> Tensor | PackedSequence:
        assert self.packed is not None
        packed = self.packed._replace(data=data)
        if not self.padded:
            return packed
        return pad_packed_sequence(packed, self.batch_first, total_length=self.steps)[0]


def _checked_lengths(lengths: Tensor | Sequence[int], input: Tensor, batch_first: bool) -> Tensor:
    """``lengths`` as (B,) int64 on the CPU."""
    counts = torch.as_tensor(lengths, device="cpu")
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise TypeError(f"lengths must be integers; got {counts.dtype}")
    if input.dim() != 3:
        raise ValueError(f"lengths go with a batch of padded sequences; got {tuple(input.shape)}")
    batch, steps = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if counts.shape != (batch,):
        raise ValueError(f"lengths must be ({batch},), one a sequence; got {tuple(counts.shape)}")
    if not bool(((counts >= 1) & (counts <= steps)).all()):
        raise ValueError(f"lengths must lie between 1 and the {steps} steps; got {counts.tolist()}")
    return counts.to(torch.int64)
