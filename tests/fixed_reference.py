"""The cell in fixed point in plain PyTorch: what the compiled kernels are tested against.

``csrc/rescaling.h`` does the same in C++ and CUDA, which alone have the inverse of a whole step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.bit_stack import BitStack
from irevrnn.kernels.activations import get_activation
from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.fixed_point import (
    BITS_AT_FIRST,
    FEWEST_BITS,
    MOST_BITS,
    RANGE_BITS,
    SMALL_BITS,
    USUAL_BITS,
    Numbers,
    powers_of_two,
    to_fixed,
    to_value,
)

#: How many fewer bits the next coarser scale has.
COARSER_BITS = 2
SLOPE_BITS = 2
#: How many fewer bits the next coarser scale has at most, from one that is finer than usual.
MOST_COARSER_BITS = 6
#: Bits of the largest number in a scale that becomes finer later than where a sequence begins. A
#: change between sequences, which is stored, is not worth it for fewer than FEW_BITS.
BITS_AGAIN = 24
FEW_BITS = 4


class Stack(BitStack):
    """Stacks that also take what g, resets and changes of scales forget.

    Attributes:
        places: of each unit's last change of scales (``csrc/rescaling.h``), 1 if there is none.
    """

    def __init__(self, u: Tensor, batch: int) -> None:
        super().__init__(u, batch)
        self.places = [1] * self.m.numel()

    def forget_output(self, activation: str, y: Tensor) -> Tensor:
        """Apply g: leaky_relu stores the bits that it shifts out, relu what it discards."""
        if activation == "leaky_relu":
            self._push(y < 0, y & (2**SLOPE_BITS - 1), SLOPE_BITS)
            return torch.where(y < 0, y >> SLOPE_BITS, y)
        if activation == "relu":
            self._push(y <= 0, -y, RANGE_BITS + 1)
            return y.clamp(min=0)
        return y

    def forget_reset(self, x: Numbers, reset: Tensor) -> Numbers:
        """Set h and c to 0 where sequences begin anew, (B,): push the 32 bits of each."""
        where = reset.unsqueeze(-1).expand_as(x.h)
        for state in x[:2]:
            self._push(where, state.long() & (2**32 - 1), 32)
        return Numbers(x.h.masked_fill(where, 0), x.c.masked_fill(where, 0), x.scales)

    def rescale(self, x: Numbers, by: Tensor) -> Numbers:
        """Give the scales more bits, or fewer where ``by``, (2, B, H), is negative."""
        changed, states = (by != 0).any(0), torch.stack(x[:2]).long()
        counts = (-by.long()).clamp(0, 32)
        for lost, count in zip(states & ((1 << counts) - 1), counts, strict=True):
            self._push(changed, lost, count)
        for index in changed.flatten().nonzero().flatten().tolist():
            place = self.places[index]
            self.stacks[index] += [(place >> 32, 32), (place & 0xFFFFFFFF, 32)]
            self.places[index] = (self.steps + 1) << 32 | index
        self._push(changed, (by[0] & 255) << 8 | (by[1] & 255), 16)
        finer, coarser = by.clamp(min=0), (-by).clamp(min=0, max=31)
        h, c = ((states << finer) >> coarser).int()
        return Numbers(h, c, (x.scales + by).int())


def _to_first_scales(z: Tensor, x: Numbers, begins: Tensor) -> Tensor:
    """Return the change to the usual scales, or finer ones where z, (T, B, H), is small."""
    largest = z.float().abs().amax(0)
    fine = (largest > 0) & (largest * 2.0**USUAL_BITS < 2**SMALL_BITS)
    finer = (BITS_AT_FIRST - torch.frexp(largest).exponent).clamp(max=MOST_BITS)
    bits = torch.where(fine, finer, USUAL_BITS)
    return torch.where(begins, bits - x.scales, 0)


def _to_finer_scales(z: Tensor, x: Numbers) -> Tensor:
    """Return the change to scales up to the usual ones, where z and the states are small."""
    largest = torch.stack([*x.values(torch.float32), z.float().abs().amax(0)]).abs().amax(0)
    finer = (BITS_AGAIN - torch.frexp(largest).exponent).clamp(max=USUAL_BITS)
    more = (finer - x.scales).clamp(min=0)
    coarse = (x.scales < USUAL_BITS).any(0)
    return torch.where(coarse & (largest * powers_of_two(x.scales) < 2**SMALL_BITS), more, 0)


def _attempt(
    z: Tensor, x: Numbers, p: Tensor, a: Tensor, b: Tensor, f: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y and c after a step, before g, and where h and c were in range, (2, B, H)."""
    of_h, of_c = x.scales
    limit, c = 2**RANGE_BITS, x.c
    fits = torch.ones_like(x.scales, dtype=torch.bool)
    for a_i, b_i in zip(a, b, strict=True):
        fits[0] &= p.abs() < limit
        c = c + to_fixed(a_i * f(to_value(p, z.dtype, of_h)), of_c)
        fits[1] &= c.abs() < limit
        p = p + to_fixed(b_i * f(to_value(c, z.dtype, of_c)), of_h)
    y = to_fixed(z, of_h) + p
    fits[0] &= (y.abs() < limit) & (z.abs() * powers_of_two(of_h) < limit)
    return y, c, fits


def prepare(
    z: Tensor, x: Numbers, u: Tensor, a: Tensor, b: Tensor, stack: Stack,
    coupling_activation: str = "tanh", reset: Tensor | None = None, t: int = 0,
) -> Numbers:  # fmt: skip
    """Return the states before step t of a pass, in scales that it fits.

    Args:
        z: from this step to the end of the pass, (T, B, H).
        x: the states after the step before.
        u, a, b: weights of the layer.
        stack: takes what is forgotten.
        coupling_activation: f.
        reset: where h and c are set to 0, (B,) bool.
        t: the step, counted from the beginning of the pass.

    Raises:
        OverflowError: a number has room in no scale.
    """
    f = get_activation(coupling_activation).function
    begins = (x.h == 0) & (x.c == 0) if t == 0 else torch.zeros_like(x.h, dtype=torch.bool)
    first = torch.full_like(begins, stack.steps == 0)  # what need not be undone
    if reset is not None:
        x, begins = stack.forget_reset(x, reset), begins | reset.unsqueeze(-1)
        first &= ~reset.unsqueeze(-1)
    by = _to_first_scales(z, x, begins)
    x = x._replace(scales=torch.where(first, x.scales + by, x.scales).int())
    few = (by.abs() < FEW_BITS).all(0) & (x.scales >= USUAL_BITS).all(0)
    x = stack.rescale(x, torch.where(first | few, 0, by))
    if t % SEGMENT == 0:
        x = stack.rescale(x, _to_finer_scales(z[:SEGMENT], x))
    by = torch.zeros_like(x.scales)
    while True:
        h, c = (torch.stack(x[:2]) >> (-by).clamp(max=31)).int()
        tried = Numbers(h, c, x.scales + by)
        _, _, fits = _attempt(z[0], tried, stack.decay(tried.h) * _sign(u), a, b, f)
        if fits.all():
            return stack.rescale(x, by)
        coarser_by = torch.where(tried.scales > USUAL_BITS, tried.scales - USUAL_BITS, COARSER_BITS)
        by = by - coarser_by.clamp(max=MOST_COARSER_BITS) * (~fits).int()
        if ((x.scales + by) < FEWEST_BITS).any():
            raise OverflowError("a number has room in no scale")


def step(
    z: Tensor, x: Numbers, u: Tensor, a: Tensor, b: Tensor, stack: Stack,
    activation: str = "leaky_relu", coupling_activation: str = "tanh",
) -> Numbers:  # fmt: skip
    """Return the states after a step from what :func:`prepare` returned; z is (B, H)."""
    f = get_activation(coupling_activation).function
    y, c, _ = _attempt(z, x, stack.forget(x.h) * _sign(u), a, b, f)
    return Numbers(stack.forget_output(activation, y), c, x.scales)


def _sign(u: Tensor) -> Tensor:
    return torch.where(u < 0, -1, 1).int()
