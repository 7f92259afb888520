"""The cell in fixed point, each step of which has an exact inverse: the reference of the kernels.

Numbers are 32-bit integers in units of 2^-fraction_bits. Additions are exact, so couplings can be
undone. What the decay and the output nonlinearity g forget goes to a stack of bits. The idea is
that of Maclaurin et al. (2015), which MacKay et al. (2018) use for reversible RNNs: they carry the
remainder of a multiplication by a rational. Here the decay rounds, up or down by an offset that
changes from step to step, and one bit is stored where two neighbours come to the same number.
``csrc/decay.h`` does the same in C++ and CUDA, which alone have the inverse of a whole step.

Why these constants. With 24 bits behind the point, the unit is the last bit of a float between 1/2
and 1, and numbers reach to 32. Before a chunk in which a value leaves the range, the unit becomes
coarser (:func:`coarser`), and the bits that the states lose by that are stored. It becomes so by
two bits at a time, so that the largest value has 27 bits or more, where float32 has 24; a pass
repeats nine chunks of each block at most. A weight u is 2^-k (1 - m / 2^32), which float32 holds
exactly down to 2^-8: so memories of up to 2^24 steps can be told apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from irevrnn.activations import NEGATIVE_SLOPE, get_activation

#: Bits behind the point at first, and how many fewer the next coarser unit has.
FRACTION_BITS = 24
COARSER_BITS = 2
#: The fewest: values reach to 2^23, so a unit that never forgets may add up a million steps.
FEWEST_FRACTION_BITS = 6
#: How often a unit may become coarser.
COARSER_UNITS = (FRACTION_BITS - FEWEST_FRACTION_BITS) // COARSER_BITS
#: Absolute values stay below 2^RANGE_BITS units.
RANGE_BITS = 29
SLOPE_BITS = 2
#: Bits of the loss of a decay's factor, 1 - m / 2^32, and the largest shift.
LOSS_BITS = 32
LONGEST_SHIFT = 29

assert NEGATIVE_SLOPE == 2.0**-SLOPE_BITS


def largest_value(fraction_bits: int) -> float:
    """Return the value that numbers stay below."""
    return 2.0 ** (RANGE_BITS - fraction_bits)


def coarser(fraction_bits: int) -> int | None:
    """Return the bits of the next coarser unit, None if there is none."""
    fewer = fraction_bits - COARSER_BITS
    return fewer if fewer >= FEWEST_FRACTION_BITS else None


def to_fixed(x: Tensor, fraction_bits: int = FRACTION_BITS) -> Tensor:
    """Round values to fixed point, int32; ties go to even.

    What is out of range, or NaN, becomes a number that is out of range, too.
    """
    limit = 2.0**31 - 2**7  # the largest of single precision that int32 has room for
    units = (x * 2.0**fraction_bits).round().clamp(-limit, limit)
    return units.nan_to_num(nan=limit).to(torch.int32)


def to_value(x: Tensor, dtype: torch.dtype, fraction_bits: int = FRACTION_BITS) -> Tensor:
    """Return the values of fixed-point numbers."""
    return x.to(dtype).mul_(2.0**-fraction_bits)


def largest_of(x: Tensor) -> Tensor:
    """Return the largest absolute number, or NaN, as a tensor of no dimensions."""
    return x.detach().abs().max() if x.numel() else x.new_zeros(())


def decay_of(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return m and k, int64, of |u| = 2^-k (1 - m / 2^32) with 0 <= m < 2^31."""
    fraction, exponent = torch.frexp(u.detach().double().abs())
    whole = fraction == 0.5
    shift = torch.where(whole, 1 - exponent, -exponent).long()
    fraction = torch.where(whole, torch.ones_like(fraction), fraction)
    tiny = (u == 0) | (shift > LONGEST_SHIFT)
    fraction.masked_fill_(tiny, 1.0)
    shift.masked_fill_(tiny, LONGEST_SHIFT)
    loss = ((1 - fraction) * 2.0**LOSS_BITS).round().clamp(max=2.0 ** (LOSS_BITS - 1) - 1)
    return loss.long(), shift


def stored_bits(u: Tensor) -> Tensor:
    """Return the bits that a decay stores on average, k + 2 m / 2^32 for each unit (``eq:stored``).

    In a share m / 2^32 of all steps two neighbours come to one number, and both are marked.
    """
    loss, shift = decay_of(u)
    return shift + loss.double() * 2.0 ** (1 - LOSS_BITS)


def offset_of(step: int) -> int:
    """Return the offset of a step's rounding: multiples of the golden ratio, spread evenly."""
    return (2**31 + step * 0x9E3779B1) % 2**32


class BitStack:
    """The bit stacks of a layer: for each unit a list of what was pushed, as (value, bits).

    Args:
        u: recurrent weights, (H,).
        batch: B.

    Attributes:
        steps: the number of steps that were taken and not undone.
    """

    def __init__(self, u: Tensor, batch: int) -> None:
        self.steps = 0
        self.m, self.shift = (x.expand(batch, -1) for x in decay_of(u))
        self.stacks: list[list[tuple[int, int]]] = [[] for _ in range(self.m.numel())]

    def count(self) -> int:
        """Return the bits on all stacks."""
        return sum(bits for stack in self.stacks for _, bits in stack)

    def _push(self, where: Tensor, values: Tensor, bits: Tensor | int) -> None:
        bits = torch.as_tensor(bits).expand(where.shape)
        for index in where.flatten().nonzero().flatten().tolist():
            pushed = int(values.flatten()[index]), int(bits.flatten()[index])
            self.stacks[index].append(pushed)

    def _pop(self, where: Tensor) -> Tensor:
        values = torch.zeros(where.numel(), dtype=torch.int64)
        for index in where.flatten().nonzero().flatten().tolist():
            values[index], _ = self.stacks[index].pop()
        return values.view(where.shape)

    def _decayed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is left of x, and where x + 1 and x - 1 come to the same."""
        product = x * self.m + offset_of(self.steps)
        low = product & (2**LOSS_BITS - 1)
        return x - (product >> LOSS_BITS), low + self.m >= 2**LOSS_BITS, low < self.m

    def forget(self, h: Tensor) -> Tensor:
        """Multiply h by abs(u), rounded (``eq:decay``)."""
        h = h.long()
        self._push(self.shift > 0, h & ((1 << self.shift) - 1), self.shift)
        p, with_next, with_previous = self._decayed(h >> self.shift)
        self._push(with_next | with_previous, with_previous, 1)
        self.steps += 1
        return p.int()

    def recall(self, p: Tensor) -> Tensor:
        """Invert :meth:`forget`."""
        self.steps -= 1
        p = p.long()
        kept = 1 - self.m.double() * 2.0**-LOSS_BITS
        x = ((p.double() + offset_of(self.steps) * 2.0**-LOSS_BITS) / kept).floor().long()
        value, with_next, _ = self._decayed(x)
        x = x - (value > p).long() + ((value < p) | ((value == p) & with_next)).long()
        _, _, with_previous = self._decayed(x)  # x is the larger of two, if there are two
        x = x - (with_previous & (self._pop(with_previous) == 0)).long()
        return ((x << self.shift) | self._pop(self.shift > 0)).int()

    def forget_output(self, activation: str, y: Tensor) -> Tensor:
        """Apply g: leaky_relu stores the bits that it shifts out, relu what it discards."""
        if activation == "leaky_relu":
            self._push(y < 0, y & (2**SLOPE_BITS - 1), SLOPE_BITS)
            return torch.where(y < 0, y >> SLOPE_BITS, y)
        if activation == "relu":
            self._push(y <= 0, -y, RANGE_BITS + 1)
            return y.clamp(min=0)
        return y

    def forget_reset(self, h: Tensor, c: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Set h and c to 0 where sequences begin anew, (B,): push the 32 bits of each."""
        where = reset.unsqueeze(-1).expand_as(h)
        for x in (h, c):
            self._push(where, x.long() & (2**32 - 1), 32)
        return h.masked_fill(where, 0), c.masked_fill(where, 0)


def _increments(
    f: Callable[[Tensor], Tensor], weights: Tensor, x: Tensor, fraction_bits: int
) -> Tensor:
    return to_fixed(weights * f(to_value(x, weights.dtype, fraction_bits)), fraction_bits)


def step(
    z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor, stack: BitStack,
    activation: str = "leaky_relu", coupling_activation: str = "tanh",
    reset: Tensor | None = None, fraction_bits: int = FRACTION_BITS,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (h, c) after a step in fixed point; ``stack`` takes what is forgotten.

    Where ``reset``, (B,) bool, is true, h and c are set to 0 before.
    """
    f = get_activation(coupling_activation).function
    if reset is not None:
        h, c = stack.forget_reset(h, c, reset)
    p = stack.forget(h)
    p = torch.where(u < 0, -p, p)
    for a_i, b_i in zip(a, b, strict=True):
        c = c + _increments(f, a_i, p, fraction_bits)
        p = p + _increments(f, b_i, c, fraction_bits)
    return stack.forget_output(activation, to_fixed(z, fraction_bits) + p), c
