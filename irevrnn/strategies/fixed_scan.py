"""The compiled recurrence in fixed point: forward, its exact inverse, and its gradient.

``fixed_point.py`` is its reference. The gradient is that of the float recurrence, evaluated at the
states that were visited, straight through every rounding: at h of every step, and at c of every
:data:`~irevrnn.strategies.rules.SEGMENT` steps, from which those between are computed in floating
point.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from irevrnn.backend import choose_backend
from irevrnn.modules.recurrence import Recurrence
from irevrnn.ops import HALF
from irevrnn.strategies.fixed_point import FRACTION_BITS, to_fixed, to_value

#: Integers in place of numbers of so many bytes; larger ones are taken apart.
_BITS = {1: torch.uint8, 2: torch.int16}


class States(NamedTuple):
    """Fixed-point states of a block.

    Attributes:
        h, c: output and cell state, int32, (B, H).
        tails: the last bits of each bit stack, fewer than a word, int64, one entry for each stack;
            without entries where all stacks are empty. In the vectorised kernel the lanes of a
            layer share at most 16 stacks; on a GPU, and in the scalar kernel, each has its own.
        fraction_bits: units of h and c are 2^-fraction_bits.
        steps: the steps of the sequence before these states.
    """

    h: Tensor
    c: Tensor
    tails: Tensor
    fraction_bits: int
    steps: int = 0

    @classmethod
    def of(cls, h_0: Tensor, c_0: Tensor, fraction_bits: int = FRACTION_BITS) -> States:
        """Round float states and begin empty bit stacks."""
        h, c = to_fixed(h_0, fraction_bits), to_fixed(c_0, fraction_bits)
        return cls(h, c, h.new_empty(0, dtype=torch.int64), fraction_bits)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that is a tensor."""
        return self.h, self.c, self.tails

    def hash(self) -> Tensor:
        """Return a 64-bit hash, int64, which any one changed bit changes, on any device."""
        return torch.ops.irevrnn.state_hash(*self.tensors)

    def values(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return outputs and cell states as floats."""
        h, c = (to_value(x, dtype, self.fraction_bits) for x in (self.h, self.c))
        return h, c

    def in_unit(self, fraction_bits: int) -> tuple[States, Tensor]:
        """Return the states in a coarser unit, and the bits that they lose, (2, B, H) int32."""
        shift = self.fraction_bits - fraction_bits
        lost = torch.stack((self.h, self.c)) & ((1 << shift) - 1)
        coarser = self._replace(h=self.h >> shift, c=self.c >> shift, fraction_bits=fraction_bits)
        return coarser, lost

    def with_bits(self, lost: Tensor, fraction_bits: int) -> States:
        """Invert :meth:`in_unit`; the lowest bits of ``lost`` are those that it returned."""
        shift = fraction_bits - self.fraction_bits
        low = lost & ((1 << shift) - 1)
        h, c = ((x << shift) | bits for x, bits in zip((self.h, self.c), low, strict=True))
        return self._replace(h=h, c=c, fraction_bits=fraction_bits)


def hash_of(x: Tensor) -> Tensor:
    """Return a hash of any tensor, as that of :class:`States`."""
    bits = x.resolve_conj().contiguous().view(_BITS.get(x.element_size(), torch.int32)).int()
    hashed: Tensor = torch.ops.irevrnn.state_hash(bits)
    return hashed


class Buffer(NamedTuple):
    """The words of a layer's bit stacks, and where each stack begins and ends.

    Attributes:
        words: int32, one stack after the other.
        starts, counts: int64, one entry for each stack.
    """

    words: Tensor
    starts: Tensor
    counts: Tensor


class Pass(NamedTuple):
    """The result of a pass over some steps, with all that their gradient needs.

    Attributes:
        out: (T, B, H), h of every step; (N, H) if packed.
        saved: (ceil(T / SEGMENT) - 1, B, H), c before every step that begins a segment, but for the
            first.
        before, after: the states at both ends.
    """

    out: Tensor
    saved: Tensor
    before: States
    after: States


class RangeError(OverflowError):
    """A value left the range of the fixed-point numbers, or was NaN.

    Attributes:
        step: the first such step, counted from the beginning of the pass.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"value out of range at step {step}")


def vectorizes(z: Tensor) -> bool:
    """Return whether the vectorised kernel runs, not the scalar one; build them if needed.

    Raises:
        RuntimeError: there are no kernels for the dtype and device of z.
    """
    # No kernel takes half precision in fixed point, on any device.
    if z.dtype in HALF:
        raise RuntimeError(
            "memory='reversible' and 'store_fixed' take parameters of float32 or float64; got "
            f"{z.dtype}: use autocast, or memory='checkpoint'"
        )
    backend = choose_backend(z.device.type, z.dtype)
    if backend == "python":
        raise RuntimeError(
            "memory='reversible' and 'store_fixed' need the compiled kernels, and there are none "
            f"for {z.dtype} on {z.device.type} here, or IREVRNN_BACKEND=python leaves them out; "
            "memory='checkpoint' runs without them"
        )
    return backend == "vector"


def forward(
    z: Tensor, states: States, weights: Recurrence, *, record: bool = False, save: bool = False,
    resets: Tensor | None = None, batch_sizes: Tensor | None = None,
) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
    """Run the recurrence in fixed point.

    On a GPU the host waits once, to read whether a value left the range and how many words there
    are, so this cannot be captured in a CUDA graph. With ``record``, room for all words that the
    steps may push is allocated until then: 4 bytes for each number of z, 8 with relu, and 8 for
    each unit and reset; for every sequence as for the one with the most resets, whose number is
    waited for, too.

    Args:
        z: (T, B, H); or (N, H), packed.
        states: before the first step.
        weights: of the layer.
        record: whether to return what is forgotten.
        save: whether to return ``saved``, which the gradient needs.
        resets: (T, B) or (N,) bool, where h and c of a sequence are set to 0 before the step;
            ``record`` keeps what they were.
        batch_sizes: (T,) int64 on the CPU, if z is packed: the sequences that have each step.

    Returns:
        The pass (``saved`` empty without ``save``), and the words and counts that were pushed,
        empty without ``record``.

    Raises:
        RangeError: a value left the range.
    """
    vectorize = vectorizes(z)
    out, h, c, tails, words, counts, saved, bad_step = torch.ops.irevrnn.fixed_scan(
        z, *states, *weights, record, save, vectorize, resets, batch_sizes
    )
    if bad_step >= 0:
        raise RangeError(bad_step)
    after = States(h, c, tails, states.fraction_bits, states.steps + _steps(z, batch_sizes))
    return Pass(out, saved, states, after), words, counts


def inverse(
    z: Tensor, states: States, buffer: Buffer, weights: Recurrence, resets: Tensor | None = None,
    batch_sizes: Tensor | None = None,
) -> tuple[Pass, Buffer]:  # fmt: skip
    """Run the inverse recurrence from the states after the last step. Waits for no device.

    Args:
        z, weights, resets, batch_sizes: as given to :func:`forward`.
        states: after the last step.
        buffer: the words that were pushed.

    Returns:
        The pass, and what is left of ``buffer``; a negative count says that more words were asked
        for than there were.
    """
    vectorize = vectorizes(z)
    out, h, c, tails, counts, saved = torch.ops.irevrnn.fixed_unscan(
        z, *states, *buffer, *weights, vectorize, resets, batch_sizes
    )
    before = States(h, c, tails, states.fraction_bits, states.steps - _steps(z, batch_sizes))
    return Pass(out, saved, before, states), buffer._replace(counts=counts)


def _steps(z: Tensor, batch_sizes: Tensor | None) -> int:
    return len(z if batch_sizes is None else batch_sizes)


def with_gradient(
    result: Pass, weights: Recurrence, z: Tensor, h_0: Tensor, c_0: Tensor,
    resets: Tensor | None = None, batch_sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return a pass as a function of z, the initial states and the weights.

    Args:
        result: the pass, computed without gradients.
        weights: of the layer; u, a and b are differentiated with respect to.
        z: as given to :func:`forward`, to differentiate with respect to.
        h_0, c_0: (B, H). They only carry their gradients: the pass has its own states.
        resets, batch_sizes: as given to :func:`forward`.

    Returns:
        ``out``, in the form of z, ``h_n`` and ``c_n`` (B, H).
    """
    before, after = result.before, result.after
    results: tuple[Tensor, Tensor, Tensor] = torch.ops.irevrnn.fixed_gradient.default(
        z, h_0, c_0, *weights[:3], result.out, result.saved, [*before[:2], *after[:2]],
        [before.fraction_bits, after.fraction_bits], *weights[3:], vectorizes(z), resets,
        batch_sizes,
    )  # fmt: skip
    return results
