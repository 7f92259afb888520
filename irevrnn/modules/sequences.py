"""The forms of inputs and states, and the one that a stack works on: time first, or packed.

In packed rows there is no padding to compute, and a module needs to know nothing of lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irevrnn.modules.checks import check_resets, check_states, check_tuple
from irevrnn.recurrences.packing import Packing, Steps
from irevrnn.recurrences.protocol import State
from irevrnn.recurrences.stateful import StatefulModule
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States

#: (h, c): of one block, (B, H) each; or of a stack, (L, B, H) each, or a tuple of L tensors (B, H)
#: each where blocks have different sizes.
Hidden = tuple[Any, Any]


@dataclass(frozen=True)
class SequenceBatch:
    """Put an input into the form that a stack takes, and outputs into the form it came in."""

    x: Tensor  # (T, B, in), not always contiguous; or (N, in) packed; tokens have one feature
    packing: Packing | None  # of x, if it is packed
    steps: int  # T
    size: int  # B
    batched: bool  # whether the input had a batch dimension
    batch_first: bool
    packed: PackedSequence | None = None
    padded: bool = False  # whether the input came with lengths

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
        counts = torch.as_tensor(lengths, device="cpu")
        if counts.is_floating_point() or counts.dtype == torch.bool:
            raise TypeError(f"lengths must be integers; got {lengths}")
        counts = counts.to(torch.int64)
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


def initial_states(stack: Stack, batch: SequenceBatch, hidden: Any) -> States:
    """Check initial states in the form of :class:`irevrnn.IRevStack`, and sort them as the rows."""
    if hidden is None:
        return stack.initial_states(batch.size)
    count = len(stack.recurrences)
    if len(stack.blocks) == count:
        check_tuple("hidden", hidden, 2, "a pair (h_0, c_0)")
        for name, states in zip(("h_0", "c_0"), hidden, strict=True):
            given = len(states) if isinstance(states, Tensor | tuple | list) else "no"
            if given != count:
                wanted = f"{count} states, one for each recurrence, in its first dimension"
                kind = type(states).__name__
                raise ValueError(f"{name} must have {wanted}; got {given} ({kind})")
        hidden = [*zip(*hidden, strict=True)]
    check_tuple("hidden", hidden, count, f"a tuple of {count} states, one for each recurrence")
    found: States = []
    for index, (recurrence, state) in enumerate(zip(stack.recurrences, hidden, strict=True)):
        if state is None:
            found.append(recurrence.initial_state(batch.size))
        elif isinstance(recurrence, StatefulModule):
            tensors = recurrence.flatten(state)
            if batch.packed is not None or not batch.batched:
                dims = recurrence.batch_dims(tensors, batch.size)
                tensors = tuple(map(batch.sorted, tensors, dims))
            found.append(tensors)
        else:
            shape = (*((batch.size,) if batch.batched else ()), recurrence.width)
            check_states(state, shape, stack.like, (f"h_0[{index}]", f"c_0[{index}]"))
            found.append(tuple(batch.sorted(x.to(stack.like.dtype)) for x in state))
    return found


def final_states(stack: Stack, batch: SequenceBatch, finals: list[State]) -> Any:
    """Return the final states in the form of the initial ones."""
    pairs = zip(stack.recurrences, finals, strict=True)
    found = [_restored(recurrence, batch, state) for recurrence, state in pairs]
    if len(stack.blocks) < len(finals):
        return tuple(found)
    h_n, c_n = zip(*found, strict=True)
    same = all(state.shape == h_n[0].shape for state in h_n)
    return (torch.stack(h_n), torch.stack(c_n)) if same else (h_n, c_n)


def _restored(recurrence: Any, batch: SequenceBatch, state: State) -> Any:
    if not isinstance(recurrence, StatefulModule):
        return tuple(map(batch.restored, state))
    if batch.packed is not None or not batch.batched:
        state = tuple(map(batch.restored, state, recurrence.batch_dims(state, batch.size)))
    return recurrence.nest(state)
