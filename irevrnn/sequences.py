"""The forms an input may take, and the single form that a stack works on: time first, or packed.

Packed rows are laid out as in PyTorch's ``PackedSequence``: step after step, the rows of all
sequences that have that step, the longest sequence first. So there is no padding to compute, and a
module that maps row by row needs to know nothing of lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irevrnn.input_checks import (
    check_batch_sizes,
    check_features,
    check_lists_of_states,
    check_resets,
    check_states,
    check_tensor,
    check_values,
    checked_lengths,
)

#: (h, c): of one block, (B, H) each; or of a stack, (L, B, H) each, or a tuple of L tensors (B, H)
#: each where blocks have different sizes.
States = tuple[Any, Any]


@dataclass(frozen=True)
class Packing:
    """Where the rows of packed sequences lie.

    Attributes:
        batch_sizes: (T,) int64 on the CPU, the number of sequences that have each step.
        sequences: (N,), the sequence that each row belongs to.
        ended: (E,), the sequences whose last row is among these; (B,) for a complete input.
        last_rows: (E,), the last rows of these sequences.
    """

    batch_sizes: Tensor
    sequences: Tensor
    ended: Tensor
    last_rows: Tensor

    @cached_property
    def _ends(self) -> Tensor:
        """(T,), the row behind those of each step; once for all parts."""
        return self.batch_sizes.cumsum(0)

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> Packing:
        """Return the packing that ``batch_sizes`` (T,) describes."""
        starts = batch_sizes.cumsum(0) - batch_sizes
        rows = torch.arange(int(batch_sizes.sum()), device="cpu")
        sequences = rows - torch.repeat_interleave(starts, batch_sizes)
        ended = torch.arange(int(batch_sizes[0]), device="cpu")
        last_rows = torch.zeros_like(ended).scatter_reduce(0, sequences, rows, "amax")
        return cls(batch_sizes, sequences.to(device), ended.to(device), last_rows.to(device))

    @property
    def steps(self) -> Tensor:
        """(N,), the step of each row, on the device of the rows."""
        return torch.repeat_interleave(self.batch_sizes).to(self.sequences.device)

    def part(self, steps: slice) -> tuple[slice, Packing]:
        """Return the rows of some of the steps, and how these are packed."""
        begin = int(self._ends[steps.start - 1]) if steps.start else 0
        sizes = self.batch_sizes[steps]
        rows = slice(begin, begin + int(sizes.sum()))
        inside = (self.last_rows >= rows.start) & (self.last_rows < rows.stop)
        part = Packing(
            sizes, self.sequences[rows], self.ended[inside], self.last_rows[inside] - rows.start
        )
        return rows, part

    def reversal(self) -> Tensor:
        """Return (N,), the row that takes each row's place when every sequence is reversed."""
        lengths = torch.bincount(self.sequences)
        starts = (self._ends - self.batch_sizes).to(lengths.device)
        return starts[lengths[self.sequences] - 1 - self.steps] + self.sequences


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
    def of(
        cls,
        input: Tensor | PackedSequence,
        lengths: Tensor | Sequence[int] | None,
        batch_first: bool,
        like: Tensor,
        features: int | None = None,
        tokens: bool = False,
    ) -> SequenceBatch:
        """Check an input and bring it into the form of a stack.

        Args:
            input: a tensor of two or three dimensions, or a ``PackedSequence``; tokens have one
                dimension less.
            lengths: (B,), for padded sequences.
            batch_first: whether the batch dimension of a tensor comes first.
            like: a parameter; the input must have its dtype and device.
            features: the features that the input must have, if that is known.
            tokens: whether an embedding reads the input.

        Raises:
            TypeError: ``input`` is neither, or ``lengths`` are no integers.
            ValueError: a shape, dtype or device does not fit.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths go with padded input; a PackedSequence has its own")
            check_values(input.data, like, tokens)
            if input.data.dim() != (1 if tokens else 2):
                wanted = "(N,), indices for the embedding in block 0" if tokens else "(N, feature)"
                raise ValueError(
                    f"a PackedSequence must hold data {wanted}; got shape {tuple(input.data.shape)}"
                )
            if tokens:
                input = input._replace(data=input.data.unsqueeze(-1))
            else:
                check_features(input.data, features)
            check_batch_sizes(input.batch_sizes, len(input.data))
            packing = Packing.of(input.batch_sizes, input.data.device)
            steps, size = len(input.batch_sizes), int(input.batch_sizes[0])
            return cls(input.data, packing, steps, size, True, batch_first, input)
        check_tensor(input, batch_first, like, features, tokens)
        input = input.unsqueeze(-1) if tokens else input
        if lengths is not None:
            counts = checked_lengths(lengths, input, batch_first)
        if lengths is not None and len(counts):  # a batch without sequences cannot be packed
            packed = pack_padded_sequence(input, counts, batch_first, enforce_sorted=False)
            steps = input.shape[1 if batch_first else 0]
            packing = Packing.of(packed.batch_sizes, input.device)
            return cls(packed.data, packing, steps, len(counts), True, batch_first, packed, True)
        if input.dim() == 2:
            return cls(input.unsqueeze(1), None, input.shape[0], 1, False, batch_first)
        x = input.transpose(0, 1) if batch_first else input
        return cls(x, None, x.shape[0], x.shape[1], True, batch_first)

    def arrange_resets(self, resets: Tensor | None) -> Tensor | None:
        """Check a mask of resets and bring it into the form of x.

        Args:
            resets: bool, (B, T) or (T, B) as the input has it, (T,) without a batch; (N,) in the
                order of the rows of a ``PackedSequence``.

        Returns:
            (T, B) or (N,).

        Raises:
            TypeError: it is not a tensor of bool.
            ValueError: a shape or device does not fit.
        """
        if resets is None:
            return None
        packed_input = self.packed is not None and not self.padded
        shape: tuple[int, ...] = (self.steps, self.size)
        shape = (len(self.x),) if packed_input else shape[::-1] if self.batch_first else shape
        check_resets(resets, shape if self.batched else (self.steps,), self.x.device)
        if packed_input:
            return resets
        resets = resets.view(self.steps, -1) if not self.batched else resets
        resets = resets.t() if self.batch_first and self.batched else resets
        if self.packing is None:
            return resets.contiguous()
        order = self.packed.sorted_indices  # type: ignore[union-attr]
        resets = resets if order is None else resets[:, order]
        return resets[self.packing.steps, self.packing.sequences]

    def initial_states(
        self, hidden: States | None, sizes: Sequence[int], like: Tensor, symbols: str
    ) -> list[States]:
        """Check the initial states and bring them into the order of the rows.

        Args:
            hidden: ``(h_0, c_0)``, each (L, B, H), or (L, H) without a batch; a sequence of L
                tensors each, (B, H) or (H,), where the blocks have different sizes. Zeros if not
                given.
            sizes: H of each of the L blocks.
            like: a weight of the dtype and on the device of the states.
            symbols: the name of L in an error.

        Returns:
            (h_0, c_0) of every block, (B, H) each.

        Raises:
            TypeError: ``hidden`` is not a pair of floating-point tensors.
            ValueError: a shape, dtype or device does not fit.
        """
        if hidden is None:
            zeros = [like.new_zeros(self.size, size) for size in sizes]
            return list(zip(zeros, zeros, strict=True))
        batch = (self.size,) if self.batched else ()
        if len(set(sizes)) == 1:
            names = f"({symbols}, {'batch, ' if self.batched else ''}hidden_size)"
            check_states(hidden, (len(sizes), *batch, sizes[0]), names, like, ("h_0", "c_0"))
            hidden = hidden[0].unbind(), hidden[1].unbind()
        else:
            check_lists_of_states(hidden, len(sizes))
            names = "(batch, hidden_size)" if self.batched else "(hidden_size,)"
            for index, (h, c, size) in enumerate(zip(*hidden, sizes, strict=True)):
                pair = f"h_0[{index}]", f"c_0[{index}]"
                check_states((h, c), (*batch, size), names, like, pair)
        h_0, c_0 = ([self._sorted(x.to(like.dtype)) for x in states] for states in hidden)
        return list(zip(h_0, c_0, strict=True))

    def _sorted(self, state: Tensor) -> Tensor:
        """Bring (B, H), or (H,) without a batch, into (B, H) in the order of the rows."""
        order = None if self.packed is None else self.packed.sorted_indices
        state = state if self.batched else state[None]
        return state if order is None else state.index_select(0, order)

    def restore(
        self, output: Tensor, finals: list[States], return_sequence: bool
    ) -> tuple[Tensor | PackedSequence, States]:
        """Bring results into the form of the input."""
        hidden = self._restored_states(finals)
        order = None if self.packed is None else self.packed.unsorted_indices
        if not return_sequence:
            output = output if order is None else output.index_select(0, order)
        elif self.packed is not None:
            packed = self.packed._replace(data=output)
            if not self.padded:
                return packed, hidden
            return pad_packed_sequence(packed, self.batch_first, total_length=self.steps)[0], hidden
        elif self.batch_first and self.batched:
            output = output.transpose(0, 1)
        return (output if self.batched else output.squeeze(-2)), hidden

    def _restored_states(self, finals: list[States]) -> States:
        """Return (h_n, c_n) in the form of :meth:`initial_states`."""
        h_n, c_n = (tuple(map(self._restored, states)) for states in zip(*finals, strict=True))
        same = all(state.shape == h_n[0].shape for state in h_n)
        return (torch.stack(h_n), torch.stack(c_n)) if same else (h_n, c_n)

    def _restored(self, state: Tensor) -> Tensor:
        """Invert :meth:`_sorted`."""
        order = None if self.packed is None else self.packed.unsorted_indices
        state = state if order is None else state.index_select(0, order)
        return state if self.batched else state.squeeze(0)
