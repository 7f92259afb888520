"""The numbers of the recurrence in fixed point, each step of which has an exact inverse.

Numbers are 32-bit integers in quanta of 2^-bits. Additions are exact, so couplings can be
undone. What the decay and the output nonlinearity g forget goes to a stack of bits. The idea is
that of Maclaurin et al. (2015), which MacKay et al. (2018) use for reversible RNNs: they carry the
remainder of a multiplication by a rational. Here the decay rounds, up or down by an offset that
changes from step to step, and one bit is stored where two neighbours come to the same number.
``csrc/decay.h`` has it, and ``tests/fixed_reference.py`` the whole step in plain PyTorch.

Why these constants. With 24 bits behind the point, the quantum is the last bit of a float between
1/2 and 1, and numbers reach to 32. h and c of each unit of each sequence have a scale of their own.
Before a step in which a number leaves the range, its scale becomes coarser, by two bits at a time,
so that the largest number has 27 bits or more, where float32 has 24. At the start of each segment,
scales that have become coarse become finer again where all numbers are small. A unit whose input is
small from the beginning of a chunk, or from a reset, begins in a finer scale. Each change goes to
the stack of bits, with what is lost (``csrc/rescaling.h``). A weight u is 2^-k (1 - m / 2^32),
which float32 holds exactly down to 2^-8: so memories of up to 2^24 steps can be told apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Bits behind the point of a value of order 1.
USUAL_BITS = 24
#: The fewest: values reach to 2^23, so a unit that never forgets may add up a million steps.
FEWEST_BITS = 6
#: The most, for values below 2^-40.
MOST_BITS = 64
#: Absolute values stay below 2^RANGE_BITS quanta.
RANGE_BITS = 29
#: A scale may be finer where all numbers are below 2^SMALL_BITS quanta. The largest then has
#: BITS_AT_FIRST where a sequence begins, as its states will grow.
SMALL_BITS = 20
BITS_AT_FIRST = 20
#: Bits of the loss of a decay's factor, 1 - m / 2^32, and the largest shift.
LOSS_BITS = 32
LONGEST_SHIFT = 29

#: The value that numbers stay below.
LARGEST_VALUE = 2.0 ** (RANGE_BITS - FEWEST_BITS)


def usual_scales(h: Tensor, c: Tensor) -> Tensor:
    """Return the bits of scales that float states fit in, (2, B, H) int32; finer for small ones."""
    sizes = torch.stack((h, c)).detach().abs()
    sizes = torch.where(sizes == 0, sizes.amax(0), sizes)  # a zero has the scale of the other state
    rounded_up = sizes * (1 + 2.0**-USUAL_BITS)
    fits = (RANGE_BITS - torch.frexp(rounded_up).exponent).clamp(FEWEST_BITS, USUAL_BITS)
    fine = (BITS_AT_FIRST - torch.frexp(sizes).exponent).clamp(max=MOST_BITS)
    small = (sizes > 0) & (sizes < 2.0 ** (SMALL_BITS - USUAL_BITS))
    return torch.where(small, fine, fits).int()


def powers_of_two(bits: Tensor) -> Tensor:
    """Return 2^bits, exact in float32."""
    return ((bits.int() + 127) << 23).view(torch.float32)


def to_fixed(x: Tensor, bits: Tensor) -> Tensor:
    """Round values to fixed point, int32; ties go to even.

    What is out of range, or NaN, becomes a number that is out of range, too.
    """
    limit = 2.0**31 - 2**7  # the largest of single precision that int32 has room for
    quanta = (x * powers_of_two(bits)).round().clamp(-limit, limit)
    return quanta.nan_to_num(nan=limit).to(torch.int32)


def to_value(x: Tensor, dtype: torch.dtype, bits: Tensor) -> Tensor:
    """Return the values of fixed-point numbers."""
    return x.to(dtype).mul_(powers_of_two(-bits))


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
    """Return the bits that a decay stores on average, k + 2 m / 2^32 for each u (``eq:stored``).

    In a share m / 2^32 of all steps two neighbours come to one number, and both are marked. It has
    a gradient, that of the second part.
    """
    size = u.abs()
    fraction, exponent = torch.frexp(size.detach())
    shift = (fraction == 0.5).int() - exponent
    tiny = (size == 0) | (shift > LONGEST_SHIFT)
    shift = shift.masked_fill(tiny, LONGEST_SHIFT)
    lost = 2 - torch.ldexp(size, shift + 1)
    return shift + lost.masked_fill(tiny, 0)


class Numbers(NamedTuple):
    """Fixed-point states: h and c, (B, H) int32, and the bits of their scales, (2, B, H)."""

    h: Tensor
    c: Tensor
    scales: Tensor

    @classmethod
    def of(cls, h_0: Tensor, c_0: Tensor) -> Numbers:
        """Round float states."""
        scales = usual_scales(h_0, c_0)
        return cls(to_fixed(h_0, scales[0]), to_fixed(c_0, scales[1]), scales)

    def values(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return h and c as floats."""
        return to_value(self.h, dtype, self.scales[0]), to_value(self.c, dtype, self.scales[1])
