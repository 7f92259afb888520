"""The units of fixed-point numbers, which become coarser where a value needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.strategies import fixed_scan
from irevrnn.strategies.fixed_point import (
    COARSER_BITS,
    COARSER_UNITS,
    FEWEST_FRACTION_BITS,
    FRACTION_BITS,
    coarser,
    largest_of,
    largest_value,
)
from irevrnn.strategies.rules import check_weight


@dataclass
class Units:
    """The units of the blocks' fixed-point numbers, which may become coarser from chunk to chunk.

    Attributes:
        at_first: fraction bits of each block before the first chunk.
        changes: for each block, the chunks before which its unit became the next coarser one.
        lost: for each block, the bits that its states lost by that, (2, B, H) int32; those lost
            last are the lowest.
        steps: of the whole sequence, known in the backward pass.
    """

    at_first: list[int]
    changes: list[list[int]]
    lost: list[Tensor]
    steps: int = 0

    @classmethod
    def of(
        cls, states: list[State], recurrences: list[Recurrence], name: Callable[[int], str]
    ) -> Units:
        """Choose units that initial states fit in; check them and the weights in one transfer."""
        largest = [largest_of(x) for r, (h, c) in zip(recurrences, states, strict=True)
                   for x in (r.u, torch.stack((h, c)))]  # fmt: skip
        values = torch.stack([x.double() for x in largest]).tolist()
        at_first = []
        for number, (weight, state) in enumerate(zip(values[::2], values[1::2], strict=True)):
            check_weight(weight, name(number))
            bits: int | None = FRACTION_BITS
            while bits is not None and not state < largest_value(bits):
                bits = coarser(bits)
            if bits is None:
                raise overflow(f"{name(number)}, initial state")
            at_first.append(bits)
        lost = [torch.zeros((2, *h.shape), dtype=torch.int32, device=h.device) for h, _ in states]
        return cls(at_first, [[] for _ in at_first], lost)

    def coarsen(
        self, number: int, chunk: int, states: fixed_scan.States
    ) -> fixed_scan.States | None:
        """Return a block's states in the next coarser unit, if there is one, from a chunk on."""
        bits = coarser(states.fraction_bits)
        if bits is None:
            return None
        states, lost = states.in_unit(bits)
        self.changes[number].append(chunk)
        self.lost[number] = self.lost[number] << COARSER_BITS | lost
        return states

    def saved(self, states: list[fixed_scan.States]) -> list[Tensor]:
        """Return tensors that :meth:`restored` takes, given the states after the last step.

        Their size is the same whether or not a unit became coarser: it depends on no values.
        """
        numbers = [states[0].steps, *self.at_first]
        for chunks in self.changes:
            numbers += chunks + [-1] * (COARSER_UNITS - len(chunks))
        return [torch.tensor(numbers, device="cpu"), *self.lost]

    @classmethod
    def restored(cls, saved: Sequence[Tensor], blocks: int) -> tuple[Units, Sequence[Tensor]]:
        """Return the units, and the saved tensors that follow."""
        steps, *numbers = saved[0].tolist()
        changes = [
            [chunk for chunk in numbers[first : first + COARSER_UNITS] if chunk >= 0]
            for first in range(blocks, len(numbers), COARSER_UNITS)
        ]
        rest = saved[1 + blocks :]
        return cls(numbers[:blocks], changes, list(saved[1 : 1 + blocks]), steps), rest

    def fraction_bits(self, number: int, chunk: int) -> int:
        """Return the fraction bits of a block in a chunk."""
        coarsened = sum(before <= chunk for before in self.changes[number])
        return self.at_first[number] - coarsened * COARSER_BITS

    def before(self, chunk: int, number: int, states: fixed_scan.States) -> fixed_scan.States:
        """Return the states of a block before its unit became coarser for this chunk, if it did."""
        for later, change in enumerate(reversed(self.changes[number])):
            if change == chunk:
                lost = self.lost[number] >> later * COARSER_BITS
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
