"""Tell a module inside a stack which steps it sees, for masks that are functions of the step."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from irevrnn.observers import transformed
from irevrnn.sequences import Packing

Drawn = TypeVar("Drawn")
#: Steps whose masks are drawn together.
_TOGETHER = 16


@dataclass
class Masks:
    """The masks of one pass through a stack, drawn when a chunk is first computed.

    Attributes:
        tied: masks that all steps share, by their place in the pass.
        seeds: of masks that differ from step to step, likewise.
    """

    tied: dict[int, Tensor] = field(default_factory=dict)
    seeds: dict[int, int] = field(default_factory=dict)

    def draw_seed(self) -> int:
        """Draw a seed from the generator of the process."""
        return int(torch.randint(2**62, (), device="cpu"))


@dataclass
class Steps:
    """The steps of the sequence that a stack's modules see at present.

    Attributes:
        masks: of this pass.
        begin, end: the first step, and the one after the last.
        batch: B.
        packing: of the rows, if they are packed.
        place: the number of masks met so far: every module has masks of its own.
        first: whether masks are drawn in this chunk. When it is computed again they are drawn again
            and thrown away, so that other modules get the same numbers from the generator.
    """

    masks: Masks
    begin: int
    end: int
    batch: int
    packing: Packing | None = None
    place: int = field(default=0, init=False)
    first: bool = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.begin == 0

    def last(self) -> Steps:
        """Return the last of these steps, from the next mask on."""
        steps = Steps(self.masks, self.end - 1, self.end, self.batch)
        steps.place, steps.first = self.place, self.first
        return steps

    def mask(self, x: Tensor, p: float, tied: bool) -> Tensor:
        """Return what x is multiplied by: 0, or 1 / (1 - p).

        Args:
            x: (T, B, ...), or (N, ...) packed.
            p: probability of 0.
            tied: whether all steps of a sequence have the same mask.
        """
        place, self.place = self.place, self.place + 1
        packing = self.packing
        rows = [self.end - self.begin, self.batch] if packing is None else [len(packing.sequences)]
        if list(x.shape[: len(rows)]) != rows:
            raise ValueError(
                f"irevrnn.Dropout inside a stack must read shape ({', '.join(map(str, rows))}, "
                f"...), as the stack hands it to modules; got {tuple(x.shape)}"
            )
        shape = (self.batch, *x.shape[len(rows) :])
        if tied:
            if self.first:
                self.masks.tied.setdefault(place, draw_mask(x, shape, p))
            mask = _of_first_chunk(self.masks.tied, place)
            return mask if packing is None else mask[packing.sequences]
        # vmap says itself whether its members share their random numbers; meta has no generator.
        if transformed() or x.is_meta:
            return draw_mask(x, x.shape, p)
        if self.first:
            self.masks.seeds.setdefault(place, self.masks.draw_seed())
        mask = self._of_steps(x, shape, p, _of_first_chunk(self.masks.seeds, place))
        if packing is None:
            return mask
        return mask[packing.steps, packing.sequences]

    def _of_steps(self, x: Tensor, shape: Sequence[int], p: float, seed: int) -> Tensor:
        """Return (T, *shape), a function of the steps and the seed."""
        first, last = self.begin // _TOGETHER, (self.end - 1) // _TOGETHER
        generator = torch.Generator(x.device)
        parts = x.new_empty(last + 1 - first, _TOGETHER, *shape)
        for index, part in enumerate(parts, first):
            generator.manual_seed(hash((seed, index)) & (2**62 - 1))
            part.bernoulli_(1 - p, generator=generator)
        start = first * _TOGETHER
        if p < 1:  # otherwise all are 0
            parts.div_(1 - p)
        return parts.flatten(0, 1)[self.begin - start : self.end - start]


def _of_first_chunk(drawn: Mapping[int, Drawn], place: int) -> Drawn:
    """Return what the first chunk has drawn at a place; RuntimeError if it was not there."""
    if place not in drawn:
        raise RuntimeError(
            "a chunk of steps met an irevrnn.Dropout that the first one did not: modules of a "
            "stack must take the same way for all steps; draw what is skipped once, before the "
            "stack runs"
        )
    return drawn[place]


def draw_mask(x: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Draw a mask for x: 0, or 1 / (1 - p)."""
    return F.dropout(torch.ones(tuple(shape), dtype=x.dtype, device=x.device), p)


class _Current(threading.local):
    """The state of the stack that a thread runs.

    Attributes:
        steps: those that its modules see; None outside of a stack.
    """

    steps: Steps | None = None


current = _Current()


class _Passes:
    """The passes that run, which a compiler can watch, unlike the state of a thread.

    Attributes:
        running: passes through a stack in which something may be dropped, of all threads.
    """

    running = 0


passes = _Passes()
