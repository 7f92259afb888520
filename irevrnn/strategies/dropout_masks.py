"""Tell a module inside a stack which steps it sees, for masks that are functions of the step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irevrnn.recurrences.packing import Steps

#: The masks of one pass through a stack, by their place in it, drawn when its first chunk runs.
Masks = dict[int, Tensor]


@dataclass
class Seen:
    """The steps that a stack's modules see at present, or from now on the ``last`` of them alone.

    ``place`` is the number of masks met so far: every module has masks of its own.
    """

    masks: Masks
    steps: Steps
    place: int = 0
    last: bool = False

    def mask(self, x: Tensor, p: float) -> Tensor:
        """Return what x, (T, B, ...) or (N, ...) packed, is multiplied by: 0, or 1 / (1 - p).

        It is the same for all steps of a sequence.
        """
        place, self.place = self.place, self.place + 1
        steps, packing = self.steps, self.steps.packing
        rows = [1 if self.last else steps.end - steps.begin, steps.batch]
        if packing is not None:
            rows = [len(packing.sequences)]
        if list(x.shape[: len(rows)]) != rows:
            raise ValueError(
                f"irevrnn.Dropout inside a stack must read shape ({', '.join(map(str, rows))}, "
                f"...), as the stack hands it to modules; got {tuple(x.shape)}"
            )
        if steps.begin == 0:
            # When the chunk is computed again, this one is thrown away: other modules get the same
            # numbers from the generator.
            self.masks.setdefault(place, draw_mask(x, (steps.batch, *x.shape[len(rows) :]), p))
        elif place not in self.masks:
            raise RuntimeError(
                "a chunk of steps met an irevrnn.Dropout that the first one did not: modules of a "
                "stack must take the same branch in all steps; decide what to skip once, before "
                "the stack runs"
            )
        mask = self.masks[place]
        return mask if packing is None else mask[packing.sequences]


def draw_mask(x: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Draw a mask for x: 0, or 1 / (1 - p)."""
    return F.dropout(torch.ones(tuple(shape), dtype=x.dtype, device=x.device), p)


class _Current(threading.local):
    seen: Seen | None = None  # None outside of a stack


class _Passes:
    running = 0


#: What modules of the stack that a thread runs see.
current = _Current()
#: The number of passes of all threads, which a compiler can watch, unlike a thread's state.
passes = _Passes()
