"""The forms an input may take, and the single form that a stack works on: time first, or packed.

Packed rows are laid out as in PyTorch's ``PackedSequence``: step after step, the rows of all
sequences that have that step, the longest sequence first. So there is no padding to compute, and a
module that maps row by row needs to know nothing of lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

States = tuple[Tensor, Tensor]


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

    @classmethod
    def of(cls, batch_sizes: Tensor, device: torch.device) -> Packing:
        """Return the packing that ``batch_sizes`` (T,) describes."""
        starts = batch_sizes.cumsum(0) - batch_sizes
        rows = torch.arange(int(batch_sizes.sum()))
        sequences = rows - torch.repeat_interleave(starts, batch_sizes)
        ended = torch.arange(int(batch_sizes[0]))
        last_rows = torch.zeros_like(ended).scatter_reduce(0, sequences, rows, "amax")
        return cls(batch_sizes, sequences.to(device), ended.to(device), last_rows.to(device))

    def part(self, steps: slice) -> tuple[slice, Packing]:
        """Return the rows of some of the steps, and how these are packed."""
        begin = int(self.batch_sizes[: steps.start].sum())
        sizes = self.batch_sizes[steps]
        rows = slice(begin, begin + int(sizes.sum()))
        inside = (self.last_rows >= rows.start) & (self.last_rows < rows.stop)
        part = Packing(
            sizes, self.sequences[rows], self.ended[inside], self.last_rows[inside] - rows.start
        )
        return rows, part

    def reversal(self) -> Tensor:
        """Return (N,), the row that takes each row's place when every sequence is reversed."""
        starts = self.batch_sizes.cumsum(0) - self.batch_sizes
        steps = torch.repeat_interleave(torch.arange(len(starts)), self.batch_sizes)
        lengths = torch.bincount(self.sequences)
        starts, steps = starts.to(lengths.device), steps.to(lengths.device)
        return starts[lengths[self.sequences] - 1 - steps] + self.sequences


@dataclass(frozen=True)
class SequenceBatch:
    """Put an input into the form that a stack takes, and outputs into the form it came in.

    Attributes:
        x: (T, B, in), not always contiguous; or (N, in) packed.
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
    ) -> SequenceBatch:
        """Check an input and bring it into the form of a stack.

        Args:
            input: a tensor of two or three dimensions, or a ``PackedSequence``.
            lengths: (B,), for padded sequences.
            batch_first: whether the batch dimension of a tensor comes first.
            like: (hidden, in), a weight that the input is multiplied by.

        Raises:
            TypeError: ``input`` is neither, or ``lengths`` are no integers.
            ValueError: a shape, dtype or device does not fit.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths go with padded input; a PackedSequence has its own")
            check_values(input.data, like)
            check_batch_sizes(input.batch_sizes, len(input.data))
            packing = Packing.of(input.batch_sizes, input.data.device)
            steps, size = len(input.batch_sizes), int(input.batch_sizes[0])
            return cls(input.data, packing, steps, size, True, batch_first, input)
        _check_tensor(input, batch_first, like)
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

    def initial_states(
        self, hidden: States | None, layers: int, like: Tensor, symbols: str = "num_layers"
    ) -> States:
        """Check the initial states and bring them into the order of the rows.

        Args:
            hidden: ``(h_0, c_0)``, each (layers, B, H), or (layers, H) without a batch; zeros if
                not given.
            layers: the number of layers, times the number of directions.
            like: (H,), a weight of the dtype and on the device of the states.
            symbols: what ``layers`` is called in an error.

        Returns:
            ``h_0`` and ``c_0``, each (layers, B, H).

        Raises:
            TypeError: ``hidden`` is not a pair of floating-point tensors.
            ValueError: a shape or device does not fit.
        """
        shape = (layers, self.size, len(like))
        if hidden is None:
            zeros = like.new_zeros(shape)
            return zeros, zeros
        wanted = shape if self.batched else (layers, len(like))
        names = f"({symbols}, {'batch, ' if self.batched else ''}hidden_size)"
        check_states(hidden, wanted, names, like.device, ("h_0", "c_0"))
        h_0, c_0 = (self._sorted(state.to(like.dtype).reshape(shape)) for state in hidden)
        return h_0, c_0

    def _sorted(self, states: Tensor) -> Tensor:
        """Bring (L, B, H) into the order of the rows."""
        order = None if self.packed is None else self.packed.sorted_indices
        return states if order is None else states.index_select(1, order)

    def restore(
        self, output: Tensor, h_n: Tensor, c_n: Tensor, return_sequence: bool
    ) -> tuple[Tensor | PackedSequence, States]:
        """Bring results into the form of the input."""
        order = None if self.packed is None else self.packed.unsorted_indices
        if order is not None:
            h_n, c_n = h_n.index_select(1, order), c_n.index_select(1, order)
        if not return_sequence:
            output = output if order is None else output.index_select(0, order)
        elif self.packed is not None:
            return self._repacked(output), (h_n, c_n)
        elif self.batch_first and self.batched:
            output = output.transpose(0, 1)
        if not self.batched:
            output, h_n, c_n = (y.squeeze(-2) for y in (output, h_n, c_n))
        return output, (h_n, c_n)

    def _repacked(self, data: Tensor) -> Tensor | PackedSequence:
        assert self.packed is not None
        packed = self.packed._replace(data=data)
        if not self.padded:
            return packed
        return pad_packed_sequence(packed, self.batch_first, total_length=self.steps)[0]


def check_states(
    hidden: States,
    shape: tuple[int, ...],
    symbols: str,
    device: torch.device,
    names: tuple[str, str],
) -> None:
    """Raise an error unless ``hidden`` is a pair of floating-point tensors of ``shape``."""
    pair = f"({', '.join(names)})"
    if not (isinstance(hidden, tuple | list) and len(hidden) == 2):
        given = type(hidden).__name__
        count = f" of {len(hidden)}" if isinstance(hidden, tuple | list) else ""
        raise TypeError(f"hidden must be a pair {pair}; got {given}{count}")
    for name, state in zip(names, hidden, strict=True):
        if not isinstance(state, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(state).__name__}")
        if not state.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype; got {state.dtype}")
        if tuple(state.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} = {symbols}; got {tuple(state.shape)}"
            )
        if state.device != device:
            raise ValueError(
                f"{name} must be on the device of the parameters, {device}; got {state.device}"
            )


def check_values(x: Tensor, weight: Tensor) -> None:
    """Raise a ValueError unless ``weight`` (hidden, in) can multiply the last dimension of x."""
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"input must have input_size = {weight.shape[1]} features in its last dimension; "
            f"got shape {tuple(x.shape)}"
        )
    if x.device != weight.device:
        raise ValueError(
            f"input must be on the device of the parameters, {weight.device}; got {x.device}"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"input must have the dtype of the parameters, {weight.dtype}; got {x.dtype}"
        )


def _check_tensor(input: Tensor, batch_first: bool, weight: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"input must be a torch.Tensor or PackedSequence; got {type(input).__name__}"
        )
    shape = tuple(input.shape)
    if input.dim() not in (2, 3):
        layout = "(batch, seq, feature)" if batch_first else "(seq, batch, feature)"
        raise ValueError(f"input must be {layout} or (seq, feature); got shape {shape}")
    check_values(input, weight)
    if input.shape[1 if batch_first and input.dim() == 3 else 0] == 0:
        raise ValueError(f"input must have at least one step; got shape {shape}")


def check_batch_sizes(batch_sizes: Tensor, rows: int, batch: int | None = None) -> None:
    """Raise an error unless ``batch_sizes`` (T,) describe packed sequences.

    Args:
        batch_sizes: the number of sequences that have each step.
        rows: N, what they sum to.
        batch: B, if it is known.
    """
    if not isinstance(batch_sizes, Tensor):
        raise TypeError(f"batch_sizes must be a torch.Tensor; got {type(batch_sizes).__name__}")
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or not batch_sizes.is_cpu:
        raise ValueError(
            "batch_sizes must be (T,), int64 and on the CPU; got shape "
            f"{tuple(batch_sizes.shape)}, {batch_sizes.dtype} on {batch_sizes.device}"
        )
    if torch.compiler.is_compiling():
        return  # the kernel checks the values
    try:
        sizes = batch_sizes.tolist()
    except RuntimeError as error:
        raise ValueError("batch_sizes must be the same for all members of a vmap") from error
    most = batch if batch is not None else max(sizes, default=0)
    falls = all(0 < size <= before for before, size in pairwise([most, *sizes]))
    if not sizes or not falls or sum(sizes) != rows:
        raise ValueError(
            f"batch_sizes must fall from at most B = {most} to at least 1 and sum to the {rows} "
            f"rows; got {sizes if len(sizes) < 20 else f'{len(sizes)} sizes'}"
        )


def check_resets(resets: Tensor | None, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise an error unless ``resets`` say of each step of each sequence whether it begins anew.

    Args:
        resets: bool; None, where none does, is no error.
        shape: that of z without its units: (T, B), or (N,) packed.
        device: that of z.
    """
    if resets is None:
        return
    if not isinstance(resets, Tensor):
        raise TypeError(f"resets must be a torch.Tensor; got {type(resets).__name__}")
    if resets.dtype != torch.bool:
        raise TypeError(f"resets must be of dtype torch.bool; got {resets.dtype}")
    if tuple(resets.shape) != shape:
        symbols = "(T, B)" if len(shape) == 2 else "(N,), packed like z,"
        raise ValueError(f"resets must be {symbols} = {shape}; got shape {tuple(resets.shape)}")
    if resets.device != device:
        raise ValueError(f"resets must be on the device of z, {device}; got {resets.device}")


def _checked_lengths(lengths: Tensor | Iterable[int], input: Tensor, batch_first: bool) -> Tensor:
    """Return ``lengths`` as (B,) int64 on the CPU."""
    if isinstance(lengths, str) or not isinstance(lengths, Tensor | Iterable):
        raise TypeError(f"lengths must be integers, (batch,); got {type(lengths).__name__}")
    try:
        counts = torch.as_tensor(
            lengths if hasattr(lengths, "__len__") else list(lengths), device="cpu"
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"lengths must be integers, (batch,): {error}") from None
    if input.dim() != 3:
        raise ValueError(f"lengths go with a batch of padded sequences; got {tuple(input.shape)}")
    batch, steps = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if counts.shape != (batch,):
        raise ValueError(
            f"lengths must be ({batch},), one for each sequence; got {tuple(counts.shape)}"
        )
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise TypeError(f"lengths must be integers; got {counts.dtype}")
    counts = counts.to(torch.int64)
    if not bool(((counts >= 1) & (counts <= steps)).all()):
        raise ValueError(f"lengths must lie between 1 and the {steps} steps; got {counts.tolist()}")
    return counts
