"""The strategy ``checkpoint``: save states where chunks begin, and run chunks again from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from irevrnn.kernels.allocator import allocate
from irevrnn.kernels.ops import HALF
from irevrnn.recurrences.protocol import Drive, Recurrence, Result, State
from irevrnn.strategies.revolve import first_places, stride
from irevrnn.strategies.run import Run
from irevrnn.strategies.strategy import flat, leaf, nested

#: Largest difference between states that are computed twice, relative to the largest of them.
TOLERANCE = 1e-2


class Checkpoint(Run):
    """Save the states of all recurrences where chunks begin (equation ``eq:checkpoint``).

    With fewer checkpoints than chunks, the states between are computed again in the backward pass
    (:mod:`irevrnn.strategies.revolve`). Those at the end are saved, too: in the backward pass, each
    chunk must end where it did before.
    """

    recurrences: Sequence[Recurrence]

    def begin(self, states: list[State]) -> None:
        # Rounded between chunks, results in half precision would depend on the chunks' length.
        pairs = zip(states, self.recurrences, strict=True)
        self.states = [
            tuple(x.float() if x.dtype in HALF and r.full_precision else x for x in s)
            for s, r in pairs
        ]
        self.initial, self.boundaries = list(self.states), list[Tensor]()
        #: Where the states of later chunks are, among the boundaries.
        self.places = {p: i for i, p in enumerate(self._later_places())} if self.records else {}

    def _later_places(self) -> Sequence[int]:
        """Return the chunks, but for the first, before which states are kept."""
        few = self.plan.checkpoints
        return first_places(self.chunks, few)[1:] if few else range(1, self.chunks)

    def advance(self, number: int, drive: Drive) -> Result:
        if number == 0 and (index := self.places.get(self.chunk)) is not None:
            states = flat(self.states)
            if not self.boundaries:
                # Whole from the start: joined in the end, they would take their memory twice.
                self.boundaries = [allocate(x, [len(self.places), *x.shape]) for x in states]
            for kept, state in zip(self.boundaries, states, strict=True):
                kept[index] = state
        out, self.states[number] = self.advance_again(number, drive, self.states[number])
        return out, self.states[number]

    def advance_again(self, number: int, drive: Drive, state: State) -> Result:
        return self.recurrences[number].scan(drive, state, self.steps, "recompute")

    def finals(self, dtype: torch.dtype) -> list[State]:
        pairs = zip(self.states, self.recurrences, strict=True)
        return [tuple(x.to(dtype) for x in s) if r.full_precision else s for s, r in pairs]

    def record(self) -> Any:
        return self.initial, self.boundaries, self.states

    def begin_backward(self, record: Any) -> None:
        initial, self.boundaries, self.states = record
        self.begun, self.places = flat(self.states), {}
        #: The chunks before which states are kept, each with these or their place.
        self.kept: list[tuple[int, list[State] | int]] = [(0, initial)]
        self.kept += [(place, index) for index, place in enumerate(self._later_places())]
        device = self.begun[0].device if self.begun else None
        self.compared = torch.zeros(self.chunks, 2, device=device)

    def restore(self, chunk: int) -> list[State]:
        limit = self.plan.checkpoints or chunk + 1
        while (place := self.kept[-1][0]) < chunk:
            ahead = place + stride(chunk + 1 - place, limit + 1 - len(self.kept))
            self.states = self._states(self.kept[-1][1])
            for index in range(place, ahead):
                with torch.no_grad(), self.replayed(index):
                    self.run_chunk(index)
            self.kept.append((ahead, list(self.states)))
        states = self._states(self.kept.pop()[1])
        self.begun, self.wanted = flat(states), self.begun
        return [tuple(map(leaf, state)) for state in states]

    def _states(self, kept: list[State] | int) -> list[State]:
        if isinstance(kept, int):
            return nested(iter([x[kept] for x in self.boundaries]), map(len, self.states))
        return list(kept)

    @torch.no_grad()
    def note(self, output: Tensor, after: Sequence[Tensor] | None = None) -> None:
        """Note how far the states after a chunk are from those of the forward pass."""
        both = zip(after or (), self.wanted if after else (), strict=True)
        pairs = [(x, y) for x, y in both if x.is_floating_point() and x.numel()]
        if pairs:
            columns = zip(*pairs, strict=True)
            found, wanted = (torch.cat([x.flatten() for x in xs]) for xs in columns)
            self.compared[self.chunk, 0] = (found - wanted).abs().amax()
            self.compared[self.chunk, 1] = wanted.abs().amax()

    def finish(self) -> None:
        """Compare all chunks at once: on a GPU, each comparison would wait for it."""
        if type(self.compared) is not Tensor or self.compared.is_meta:  # it has no values
            return
        apart, largest = self.compared.unbind(1)
        if len(wrong := (apart > TOLERANCE * largest).nonzero()):
            chunk = int(wrong[0])
            raise RuntimeError(
                f"chunk {chunk}: memory='checkpoint' did not compute the states of the forward "
                f"pass again (they differ by {apart[chunk]:.2g}, the largest is "
                f"{largest[chunk]:.2g}): the input or a module was changed between the passes, or "
                "a module keeps a state or draws from a generator of its own; use "
                "memory='recompute', or find the module by irevrnn.check_stepwise"
            )
