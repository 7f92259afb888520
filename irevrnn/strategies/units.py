"""The units of fixed-point numbers, which become coarser where a value needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence
from irevrnn.strategies import fixed_scan
from irevrnn.strategies.fixed_point import (
    COARSER_BITS,
    FEWEST_FRACTION_BITS,
    FRACTION_BITS,
    coarser,
    largest_of,
    largest_value,
)
from irevrnn.strategies.rules import check_weight

FloatStates = tuple[Tensor, Tensor]


@dataclass
class Units:
    """The units of the blocks' fixed-point numbers, which may become coarser from chunk to chunk.

    Attributes:
        at_first: fraction bits of each block before the first chunk.
        changes: the chunk and the block before which a unit became the next coarser one.
        lost: the bits that the states lost by that.
        steps: of the whole sequence, known in the backward pass.
    """

    at_first: list[int]
    changes: list[tuple[int, int]] = field(default_factory=list)
    lost: list[Tensor] = field(default_factory=list)
    steps: int = 0

    @classmethod
    def of(
        cls, states: list[FloatStates], recurrences: list[Recurrence], name: Callable[[int], str]
    ) -> Units:
        """Choose units that initial states fit in; check them and the weights in one transfer."""
        largest = [largest_of(x) for r, (h, c) in zip(recurrences, states, strict=True)
                   for x in (r.u, torch.stack((h, c)))]  # fmt: skip
        values = torch.stack([x.float() for x in largest]).tolist()
        at_first = []
        for number, (weight, state) in enumerate(zip(values[::2], values[1::2], strict=True)):
            check_weight(weight, name(number))
            bits: int | None = FRACTION_BITS
            while bits is not None and not state < largest_value(bits):
                bits = coarser(bits)
            if bits is None:
                raise overflow(f"{name(number)}, initial state")
            at_first.append(bits)
        return cls(at_first)

    def saved(self, steps: int) -> list[Tensor]:
        """Return tensors that :meth:`restored` takes, given the steps of the sequence."""
        changes = [number for change in self.changes for number in change]
        return [torch.tensor([len(self.lost), steps, *self.at_first, *changes]), *self.lost]

    @classmethod
    def restored(cls, saved: Sequence[Tensor], blocks: int) -> tuple[Units, Sequence[Tensor]]:
        """Return the units, and the saved tensors that follow."""
        count, steps, *numbers = saved[0].tolist()
        flat = numbers[blocks:]
        changes = list(zip(flat[::2], flat[1::2], strict=True))
        lost, rest = list(saved[1 : 1 + count]), saved[1 + count :]
        return cls(numbers[:blocks], changes, lost, steps), rest

    def fraction_bits(self, number: int, chunk: int) -> int:
        """Return the fraction bits of a block in a chunk."""
        steps = sum(block == number and before <= chunk for before, block in self.changes)
        return self.at_first[number] - steps * COARSER_BITS

    def before(self, chunk: int, number: int, states: fixed_scan.States) -> fixed_scan.States:
        """Return the states of a block before its unit became coarser for this chunk, if it did."""
        for change, lost in zip(reversed(self.changes), reversed(self.lost), strict=True):
            if change == (chunk, number):
                states = states.with_bits(lost, states.fraction_bits + COARSER_BITS)
        return states


def overflow(where: str) -> OverflowError:
    """Return the error for a value that no unit has room for."""
    limit = largest_value(FEWEST_FRACTION_BITS)
    return OverflowError(
        f"{where}: a value is NaN or left the range of the fixed-point numbers, abs(x) < "
        f"{limit:.0f}; scale the input down, use norm='layer', or bound the recurrent weights "
        "below 1 (clip_recurrent_weights_)"
    )
