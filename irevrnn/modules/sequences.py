"""The forms an input may take, and the single form that a stack works on: time first, or packed.

Packed rows are laid out as in PyTorch's ``PackedSequence``. So there is no padding to compute, and
a module that maps row by row needs to know nothing of lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irevrnn.modules.checks import check_resets
from irevrnn.recurrences.packing import Packing, Steps


@dataclass(frozen=True)
class SequenceBatch:
    """Put an input into the form that a stack takes, and outputs into the form it came in.

    Attributes:
        x: (T, B, in), not always contiguous; or (N, in) packed. Tokens have one feature.
        packing: of x, if it is packed.
        steps, size: T and B.
        batched: whether the input had a batch dimension.
        batch_first: whether that dimension came first.
        packed: the packed input, if it is packed.
        padded: whether the input was padded and came with lengths.
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
    def of(cls, input: Any, lengths: Any, batch_first: bool, batched: bool = True) -> SequenceBatch:
        """Bring an input, padded if there are ``lengths``, into the form of a stack."""
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths go with padded input; a PackedSequence has its own")
            if int(input.batch_sizes.sum()) != len(input.data):
                raise ValueError("batch_sizes of a PackedSequence must sum to the rows of its data")
            packing = Packing.of(input.batch_sizes, input.data.device)
            steps, size = len(input.batch_sizes), int(input.batch_sizes[0])
            return cls(input.data, packing, steps, size, True, batch_first, input)
        if not batched and lengths is None:
            return cls(input.unsqueeze(1), None, input.shape[0], 1, False, batch_first)
        x = input.transpose(0, 1) if batch_first and batched else input
        steps, size = x.shape[0], x.shape[1] if x.dim() > 1 else 1
        if lengths is None or not size:  # a batch without sequences cannot be packed
            return cls(x, None, steps, size, True, batch_first)
        if not batched:
            raise ValueError(f"lengths go with a batch; got input of shape {tuple(input.shape)}")
        lengths = lengths if isinstance(lengths, Tensor) else list(lengths)
        counts = torch.as_tensor(lengths, dtype=torch.int64, device="cpu")
        if counts.shape != (size,) or not all(1 <= count <= steps for count in counts.tolist()):
            raise ValueError(
                f"lengths must be {size} integers between 1 and the {steps} steps; got {lengths}"
            )
        packed = pack_padded_sequence(x, counts, enforce_sorted=False)
        packing = Packing.of(packed.batch_sizes, x.device)
        return cls(packed.data, packing, steps, size, True, batch_first, packed, True)

    def all_steps(self, resets: Tensor | None) -> Steps:
        """Return all steps, with their resets in the form of x."""
        length = self.steps if self.packing is None else self.packing.batch_sizes.shape[0]
        rows = slice(0, self.x.shape[0])
        resets = None if resets is None else self._arranged(resets)
        return Steps(0, length, self.size, rows, self.packing, resets)

    def _arranged(self, resets: Tensor) -> Tensor:
        """Check a mask of resets, and bring it into the form of x: (T, B), or (N,) if packed."""
        if self.packed is not None and not self.padded:
            check_resets(resets, (len(self.x),))
            return resets
        if not self.batched:
            check_resets(resets, (self.steps,))
            return resets.contiguous().unsqueeze(1)
        shape = self.size, self.steps
        check_resets(resets, shape if self.batch_first else shape[::-1])
        resets = resets.t() if self.batch_first else resets
        if self.packing is None:
            return resets.contiguous()
        order = self.packed.sorted_indices  # type: ignore[union-attr]
        resets = resets if order is None else resets[:, order]
        return resets[self.packing.steps, self.packing.sequences]

    def sorted(self, state: Tensor, dim: int = 0) -> Tensor:
        """Bring a state into the order of the rows; ``dim`` is its batch, inserted if missing."""
        order = None if self.packed is None else self.packed.sorted_indices
        state = state if self.batched else state.unsqueeze(dim)
        return state if order is None else state.index_select(dim, order)

    def restored(self, state: Tensor, dim: int = 0) -> Tensor:
        """Invert :meth:`sorted`."""
        order = None if self.packed is None else self.packed.unsorted_indices
        state = state if order is None else state.index_select(dim, order)
        return state if self.batched else state.squeeze(dim)

    def restore(self, output: Tensor, return_sequence: bool = True) -> Tensor | PackedSequence:
        """Bring an output into the form of the input."""
        if not return_sequence:
            return self.restored(output)
        if self.packed is not None:
            packed = self.packed._replace(data=output)
            if not self.padded:
                return packed
            return pad_packed_sequence(packed, self.batch_first, total_length=self.steps)[0]
        if not self.batched:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output
