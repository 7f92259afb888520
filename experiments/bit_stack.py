"""The bit stacks of a layer in fixed point, in plain PyTorch, as the notebooks show them.

``csrc/decay.h`` and ``csrc/bit_stack.h`` do the same in C++ and CUDA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.recurrences.fixed_point import LOSS_BITS, RANGE_BITS, Numbers, decay_of

#: How many fewer bits the next coarser scale has.
COARSER_BITS = 2
SLOPE_BITS = 2


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
        places: of each unit's last change of scales (``csrc/rescaling.h``), 1 if there is none.
    """

    def __init__(self, u: Tensor, batch: int) -> None:
        self.steps = 0
        self.m, self.shift = (x.expand(batch, -1) for x in decay_of(u))
        self.stacks: list[list[tuple[int, int]]] = [[] for _ in range(self.m.numel())]
        self.places = [1] * self.m.numel()

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
