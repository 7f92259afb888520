"""The cell in fixed point, each step of which has an exact inverse: the reference of the kernels.

Numbers are 64-bit integers in units of 2^-36. Additions are exact, so couplings can be undone. The
multiplication by a rational whose remainder is carried is that of Maclaurin et al. (2015), which
MacKay et al. (2018) use for reversible RNNs: what the decay and leaky_relu would lose goes to a bit
stack, one for each unit. Here the stack is an asymmetric numeral system (Duda, 2013), a state s
that takes a digit d in by ``s * base + d`` and gives one back by division, renormalised without
flags since every base divides its lower bound. ``csrc/bit_stack.h`` does the same in C++ and CUDA.

Why these constants. A decayed h carries digits that came off the stack in its low 16 bits, which is
noise of at most 2^16 units: 2^-20, the size of a float's last bit at 8. The state stays below 2^52
while 16 bits are appended, so that its division is exact in double precision. Values reach to
2^21: a unit that never forgets may add up a million steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from irevrnn.activations import NEGATIVE_SLOPE, get_activation
from irevrnn.strategies.rules import check_weight

FRACTION_BITS = 36
DECAY_BITS = 16
STATE_BITS = 4
SLOPE_BITS = 2
#: Largest representable value.
RANGE = 2.0 ** (57 - FRACTION_BITS)

assert NEGATIVE_SLOPE == 2.0**-SLOPE_BITS


def to_fixed(x: Tensor) -> Tensor:
    """Round values to fixed point, int64; ties go to even."""
    return (x * 2.0**FRACTION_BITS).round().to(torch.int64)


def to_value(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values of fixed-point numbers."""
    return x.to(dtype) * 2.0**-FRACTION_BITS


def round_weight(u: Tensor) -> Tensor:
    """Round recurrent weights to +-n / 2^16 with n from 1 to 2^16; the gradient passes unchanged.

    Args:
        u: recurrent weights, (H,), in [-1, 1].

    Raises:
        ValueError: a weight is outside [-1, 1], or NaN.
    """
    check_weight(largest_weight(u).item())
    return rounded_weight(u)


def largest_weight(u: Tensor) -> Tensor:
    """Return the largest absolute recurrent weight, or NaN, as a tensor of no dimensions."""
    return u.detach().abs().max() if u.numel() else u.new_zeros(())


def rounded_weight(u: Tensor) -> Tensor:
    """Round weights as :func:`round_weight` does, without the check, which waits for the device."""
    with torch.no_grad():
        n = (u.abs() * 2.0**DECAY_BITS).round().clamp(min=1) * 2.0**-DECAY_BITS
        rounded = torch.where(u < 0, -n, n)
    return _Replace.apply(u, rounded)


class _Replace(torch.autograd.Function):
    """The second value with the gradient of the first (straight-through)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()  # an input returned as it is would become a view of itself

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def empty_state(u: Tensor, batch: int) -> Tensor:
    """Return the states of empty bit stacks, (B, H), for rounded weights u (H,)."""
    n = (u.detach().abs() * 2.0**DECAY_BITS).round().to(torch.int64)
    return (n << STATE_BITS).expand(batch, -1).contiguous()


class BitStack:
    """The bit stacks of a layer: states s, and a list of words for each unit.

    Args:
        u: rounded recurrent weights, (H,).
        batch: B.
    """

    def __init__(self, u: Tensor, batch: int) -> None:
        self.n = (u.detach().abs() * 2.0**DECAY_BITS).round().to(torch.int64).expand(batch, -1)
        self.s = empty_state(u, batch)
        self.words: list[list[int]] = [[] for _ in range(self.s.numel())]

    def _push_where(self, full: Tensor) -> None:
        for index in full.flatten().nonzero().flatten().tolist():
            self.words[index].append(int(self.s.flatten()[index]) & 0xFFFF)
        self.s = torch.where(full, self.s >> 16, self.s)

    def _pop_where(self, moved: Tensor) -> None:
        words = torch.zeros_like(self.s).flatten()
        for index in moved.flatten().nonzero().flatten().tolist():
            words[index] = self.words[index].pop()
        self.s = torch.where(moved, (self.s << 16) | words.view_as(self.s), self.s)

    def forget(self, h: Tensor) -> Tensor:
        """Multiply h by n / 2^16: push its low 16 bits, pop a digit in base n (``eq:decay``)."""
        joined = (self.s << DECAY_BITS) | (h & (2**DECAY_BITS - 1))
        self.s = joined // self.n
        digit = joined - self.s * self.n
        self._push_where(self.s >= self.n << (STATE_BITS + 16))
        return (h >> DECAY_BITS) * self.n + digit

    def recall(self, p: Tensor) -> Tensor:
        """Invert :meth:`forget`."""
        self._pop_where(self.s < 1 << (STATE_BITS + DECAY_BITS))  # the digit may lie in the word
        high = torch.div(p, self.n, rounding_mode="floor")
        joined = self.s * self.n + (p - high * self.n)
        self.s = joined >> DECAY_BITS
        return (high << DECAY_BITS) | (joined & (2**DECAY_BITS - 1))

    def forget_leak(self, y: Tensor) -> Tensor:
        """Apply leaky_relu: where y is negative, push its low bits."""
        negative = y < 0
        self.s = torch.where(negative, (self.s << SLOPE_BITS) | (y & (2**SLOPE_BITS - 1)), self.s)
        self._push_where(negative & (self.s >= self.n << (STATE_BITS + 16)))
        return torch.where(negative, y >> SLOPE_BITS, y)

    def recall_leak(self, h: Tensor) -> Tensor:
        """Invert :meth:`forget_leak`."""
        negative = h < 0
        self._pop_where(negative & (self.s < self.n << (STATE_BITS + SLOPE_BITS)))
        y = torch.where(negative, (h << SLOPE_BITS) | (self.s & (2**SLOPE_BITS - 1)), h)
        self.s = torch.where(negative, self.s >> SLOPE_BITS, self.s)
        return y

    def forget_negative(self, y: Tensor) -> Tensor:
        """Apply relu: where y is not positive, push -y in groups of 15 bits, all but one marked."""
        for index in (y <= 0).flatten().nonzero().flatten().tolist():
            x, words = -int(y.flatten()[index]), self.words[index]
            words.append(x & 0x7FFF)
            while x := x >> 15:
                words.append((x & 0x7FFF) | 0x8000)
        return y.clamp(min=0)

    def recall_negative(self, h: Tensor) -> Tensor:
        """Invert :meth:`forget_negative`."""
        y = h.clone().flatten()
        for index in (y == 0).nonzero().flatten().tolist():
            x, word = 0, 0x8000
            while word & 0x8000:
                word = self.words[index].pop()
                x = (x << 15) | (word & 0x7FFF)
            y[index] = -x
        return y.view_as(h)

    def forget_reset(self, h: Tensor, c: Tensor, anew: Tensor) -> tuple[Tensor, Tensor]:
        """Set h and c to 0 where sequences begin anew, (B,): push the 64 bits of each."""
        for index in self._units(anew):
            for x in (h, c):
                number = int(x.flatten()[index])
                self.words[index] += [number >> shift & 0xFFFF for shift in range(0, 64, 16)]
        return h.masked_fill(anew.unsqueeze(-1), 0), c.masked_fill(anew.unsqueeze(-1), 0)

    def recall_reset(self, h: Tensor, c: Tensor, anew: Tensor) -> tuple[Tensor, Tensor]:
        """Invert :meth:`forget_reset`."""
        h, c = h.clone(), c.clone()
        for index in self._units(anew):
            for x in (c, h):
                number = 0
                for _ in range(4):
                    number = number << 16 | self.words[index].pop()
                x.view(-1)[index] = number - (number >> 63 << 64)
        return h, c

    def _units(self, anew: Tensor) -> list[int]:
        return anew.unsqueeze(-1).expand_as(self.s).flatten().nonzero().flatten().tolist()

    def forget_output(self, activation: str, y: Tensor) -> Tensor:
        """Apply g."""
        if activation == "identity":
            return y
        return self.forget_leak(y) if activation == "leaky_relu" else self.forget_negative(y)

    def recall_output(self, activation: str, h: Tensor) -> Tensor:
        """Invert g."""
        if activation == "identity":
            return h
        return self.recall_leak(h) if activation == "leaky_relu" else self.recall_negative(h)


def _increments(f: Callable[[Tensor], Tensor], weights: Tensor, x: Tensor) -> Tensor:
    return to_fixed(weights * f(to_value(x, weights.dtype)))


def step(
    z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor, stack: BitStack,
    activation: str = "leaky_relu", coupling_activation: str = "tanh",
    anew: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (h, c) after a step in fixed point; ``stack`` takes what is forgotten.

    Where sequences begin anew, (B,) bool, h and c are set to 0 before.
    """
    f = get_activation(coupling_activation).function
    if anew is not None:
        h, c = stack.forget_reset(h, c, anew)
    p = stack.forget(h)
    p = torch.where(u < 0, -p, p)
    for a_i, b_i in zip(a, b, strict=True):
        c = c + _increments(f, a_i, p)
        p = p + _increments(f, b_i, c)
    return stack.forget_output(activation, to_fixed(z) + p), c


def unstep(
    z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor, stack: BitStack,
    activation: str = "leaky_relu", coupling_activation: str = "tanh",
    anew: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Invert :func:`step`: return (h, c) before it."""
    f = get_activation(coupling_activation).function
    p = stack.recall_output(activation, h) - to_fixed(z)
    for a_i, b_i in zip(a.flip(0), b.flip(0), strict=True):
        p = p - _increments(f, b_i, c)
        c = c - _increments(f, a_i, p)
    h = stack.recall(torch.where(u < 0, -p, p))
    return (h, c) if anew is None else stack.recall_reset(h, c, anew)
