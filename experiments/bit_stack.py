"""The bit stacks of a layer in fixed point, in plain PyTorch, as the notebooks show them.

``csrc/decay.h`` and ``csrc/bit_stack.h`` do the same in C++ and CUDA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.recurrences.fixed_point import LOSS_BITS, decay_of


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

    def decay(self, h: Tensor) -> Tensor:
        """Return abs(u) * h, rounded (``eq:decay``)."""
        return self._decayed(h.long() >> self.shift)[0].int()

    def forget(self, h: Tensor) -> Tensor:
        """Return :meth:`decay` and push what it forgets."""
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
