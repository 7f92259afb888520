"""The compiled recurrence in fixed point: forward, and its exact inverse.

``tests/fixed_reference.py`` is its reference. The gradient (``Weights.gradient``) is that of the
float recurrence, evaluated at the states that were visited, straight through every rounding: at h
of every step, and at c of every :data:`~irevrnn.kernels.ops.SEGMENT` steps, from which those
between are computed in floating point.

All take z, (T, B, H), or (N, H) packed, with ``batch_sizes`` (T,) int64 on the CPU, the sequences
that have each step. ``resets``, (T, B) or (N,) bool, tells where h and c of a sequence are set to 0
before a step; their bit stacks keep what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.ops import HALF
from irevrnn.recurrences.fixed_point import LARGEST_VALUE, Numbers
from irevrnn.recurrences.oscillator import Oscillators

#: Integers in place of numbers of so many bytes; larger ones are taken apart.
_BITS = {1: torch.uint8, 2: torch.int16}


class States(NamedTuple):
    """Fixed-point states of a block.

    Attributes:
        h, c, scales: as in :class:`~irevrnn.recurrences.fixed_point.Numbers`.
        partial_words: the last bits of each bit stack, fewer than a word, int64, one entry for each
            stack; without entries where all stacks are empty. In the vectorised kernel the lanes of
            a layer share at most 16 stacks; on a GPU, and in the scalar kernel, each has its own.
        places: likewise of the last change of scales.
        steps: the steps of the sequence before these states.
    """

    h: Tensor
    c: Tensor
    scales: Tensor
    partial_words: Tensor
    places: Tensor
    steps: int = 0

    @classmethod
    def of(cls, h_0: Tensor, c_0: Tensor) -> States:
        """Round float states and begin empty bit stacks."""
        numbers = Numbers.of(h_0, c_0)
        none = numbers.h.new_empty(0, dtype=torch.int64)
        return cls(*numbers, none, none)

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], steps: int = 0) -> States:
        """Invert :attr:`tensors`."""
        h, c, scales, partial_words, places = tensors
        return cls(h, c, scales, partial_words, places, steps)

    @property
    def numbers(self) -> Numbers:
        """h, c and their scales."""
        return Numbers(*self[:3])

    @property
    def tensors(self) -> list[Tensor]:
        """All that is a tensor."""
        return list(self[:5])

    def hash(self) -> Tensor:
        """Return a 64-bit hash, int64, which any one changed bit changes, on any device.

        Scales are left out: those with which a sequence begins are chosen by its first pass.
        """
        return torch.ops.irevrnn.state_hash([self.h, self.c, self.partial_words, self.places])


def hash_of(x: Tensor) -> Tensor:
    """Return a hash of any tensor, as that of :class:`States`."""
    bits = x.resolve_conj().contiguous().view(_BITS.get(x.element_size(), torch.int32)).int()
    return torch.ops.irevrnn.state_hash([bits])


class Buffer(NamedTuple):
    """The words of bit stacks, int32, one stack after the other, and where each begins and ends."""

    words: Tensor
    starts: Tensor
    counts: Tensor


class Pass(NamedTuple):
    """The result of a pass over some steps, with all that their gradient needs.

    ``out`` is h of every step, and ``saved``, (ceil(T / SEGMENT) - 1, B, H), c before every step
    that begins a segment, but for the first.
    """

    out: Tensor
    saved: Tensor
    before: States
    after: States


def overflow(where: str) -> OverflowError:
    """Return the error for a value that is too large for any scale."""
    return OverflowError(
        f"{where}: a value is NaN or left the range of fixed point, abs(x) < {LARGEST_VALUE:.0f}; "
        "scale the input down, use norm='layer', or call clip_recurrent_weights_"
    )


def vectorizes(z: Tensor) -> bool:
    """Return whether the vectorised kernel runs, not the scalar one; build them if needed."""
    if z.dtype in HALF or (backend := choose_backend(z.device.type, z.dtype)) == "python":
        raise RuntimeError(
            "memory='reversible' and 'store_fixed' need the compiled kernels, and there are none "
            f"for {z.dtype} on {z.device.type} here, or IREVRNN_BACKEND=python leaves them out; "
            "use memory='checkpoint', or autocast for half precision"
        )
    return backend == "vector"


def forward(
    z: Tensor, states: States, weights: Oscillators, *, record: bool = False, save: bool = False,
    resets: Tensor | None = None, batch_sizes: Tensor | None = None, name: str = "scan",
) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
    """Run the recurrence in fixed point from the states before the first step.

    On a GPU the host waits, to read whether a value left the range and how many words there are, so
    this cannot be captured in a CUDA graph. With ``record``, room for all words that the steps may
    push is allocated until then: 4 bytes for each number of z, 8 with relu, 8 for each unit and
    reset, and 160 for each unit's changes of scales, with more room in another try.

    Return the pass, with ``saved`` if asked to ``save``, and the words and counts that were pushed,
    if asked to ``record``. An OverflowError names the step where a value left the range.
    """
    options = record, save, vectorizes(z), resets, batch_sizes
    out, tensors, words, counts, saved, bad_step = torch.ops.irevrnn.fixed_scan(
        z, states.tensors, states.steps, *weights.arguments, *options
    )
    if bad_step >= 0:
        raise overflow(f"{name}, step {states.steps + bad_step}")
    steps = len(z if batch_sizes is None else batch_sizes)
    after = States.from_tensors(tensors, states.steps + steps)
    return Pass(out, saved, states, after), words, counts


def inverse(
    z: Tensor, states: States, buffer: Buffer, weights: Oscillators,
    resets: Tensor | None = None, batch_sizes: Tensor | None = None,
) -> tuple[Pass, Buffer]:  # fmt: skip
    """Run the inverse recurrence from the states after the last step. Waits for no device.

    Return the pass, and what is left of ``buffer``: a negative count says that it had too little.
    """
    options = vectorizes(z), resets, batch_sizes
    out, tensors, counts, saved = torch.ops.irevrnn.fixed_unscan(
        z, states.tensors, states.steps, *buffer, *weights.arguments, *options
    )
    steps = len(z if batch_sizes is None else batch_sizes)
    before = States.from_tensors(tensors, states.steps - steps)
    return Pass(out, saved, before, states), buffer._replace(counts=counts)
