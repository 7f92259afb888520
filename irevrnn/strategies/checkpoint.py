"""The strategy ``checkpoint``: save states where chunks begin, and run chunks again from there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from irevrnn.allocator import allocate
from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.ops import HALF
from irevrnn.strategies.chunks import Part
from irevrnn.strategies.revolve import first_places, stride
from irevrnn.strategies.strategy import Strategy

#: Largest difference between states that are computed twice, relative to the largest of them.
TOLERANCE = 1e-2


@dataclass
class Slots:
    """The memory of the states that the forward pass saved.

    Attributes:
        reused: whether a backward pass has overwritten saved states (never the first one).
        owner: lock of the one backward pass that may overwrite them; if it fails, it keeps it.
    """

    reused: bool = False
    owner: threading.Lock = field(default_factory=threading.Lock)


class Checkpoint(Strategy):
    """Save h and c of every block where chunks begin (equation ``eq:checkpoint``).

    Those at the end are saved, too: in the backward pass, each chunk must end where it did before.

    Args:
        checkpoints: how many states are kept at once: with fewer than chunks, those between are
            computed again in the backward pass (:mod:`irevrnn.strategies.revolve`), in the memory
            of states that are no longer needed. 0 keeps all.
        slots: of this pass.
    """

    def __init__(self, checkpoints: int, slots: Slots) -> None:
        self.checkpoints, self.slots, self.owns = checkpoints, slots, False
        self.places: dict[int, int] = {}
        self.ended: list[Tensor] = []

    def begin(
        self, states: list[State], recurrences: list[Recurrence], record: bool, chunks: int
    ) -> None:
        # Rounded between chunks, results in half precision would depend on the chunks' length.
        self.states = [(_wide(h), _wide(c)) for h, c in states]
        self.recurrences = recurrences
        places = self._first_places(chunks) if record else []
        self.places = {place: index for index, place in enumerate(places)}
        # Whole from the start: joined in the end, boundaries would take their memory twice.
        boundary = self._boundary()
        self.boundaries = allocate(boundary, [len(places), len(boundary)])

    def _first_places(self, chunks: int) -> Sequence[int]:
        return first_places(chunks, self.checkpoints) if self.checkpoints else range(chunks)

    def begin_chunk(self, part: Part) -> None:
        super().begin_chunk(part)
        if self.chunk in self.places:
            self.boundaries[self.places[self.chunk]] = self._boundary()

    def _boundary(self) -> Tensor:
        return torch.cat([state.flatten() for pair in self.states for state in pair])

    def forward(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        out, *state = self._scan(z, self.states[number], number, self.part)
        self.states[number] = state[0], state[1]
        return out, state[0]

    def finals(self, dtype: torch.dtype) -> list[State]:
        return [(h.to(dtype), c.to(dtype)) for h, c in self.states]

    def saved(self) -> list[Tensor]:
        return [self.boundaries, self._boundary()]

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        boundaries, self.begun = saved
        self.recurrences = recurrences
        # Of each chunk: how far its final states are from the forward pass's, and the largest.
        self.compared = boundaries.new_zeros(chunks, 2)
        count = len(boundaries)
        if self.checkpoints:
            self.owns = self.slots.owner.acquire(blocking=False)
            # Past the version counter, which would refuse a second pass.
            self.boundaries = boundaries.data if self.owns else torch.empty_like(boundaries)
            if self.slots.reused or not self.owns:  # not the first pass through the graph
                count = 1
        places = self._first_places(chunks)
        self.kept = list(zip(places[:count], boundaries[:count], strict=True))

    def restore(self, chunk: int, run: Callable[[int], None]) -> None:
        limit = self.checkpoints or chunk + 1
        while (place := self.kept[-1][0]) < chunk:
            ahead = place + stride(chunk + 1 - place, limit + 1 - len(self.kept))
            self.states = self._states(self.kept[-1][1])
            for index in range(place, ahead):
                run(index)
            self.kept.append((ahead, self._into_slot(self._boundary())))

    def _into_slot(self, boundary: Tensor) -> Tensor:
        """Move one to the slot of its place among those kept; one too many is used at once."""
        if len(self.kept) == len(self.boundaries):
            return boundary
        self.slots.reused = True
        return self.boundaries[len(self.kept)].copy_(boundary)

    def leaves(self) -> list[State]:
        _, boundary = self.kept.pop()
        self.begun, self.wanted = boundary.clone(), self.begun  # its slot may be used again
        return [
            (h.detach().requires_grad_(), c.detach().requires_grad_())
            for h, c in self._states(boundary)
        ]

    def finish(self) -> None:
        """Compare all chunks at once: on a GPU, each comparison would wait for it."""
        if type(self.compared) is Tensor and not self.compared.is_meta:  # it has values
            for chunk, (apart, largest) in enumerate(self.compared.tolist()):
                if apart > TOLERANCE * largest:
                    raise _differ(chunk, apart, largest)
        if self.owns:
            self.slots.owner.release()

    def _states(self, boundary: Tensor) -> list[State]:
        sizes = [recurrence.hidden_size for recurrence in self.recurrences for _ in "hc"]
        batch = len(boundary) // sum(sizes)
        parts = zip(boundary.split([batch * n for n in sizes]), sizes, strict=True)
        states = [state.view(batch, size) for state, size in parts]
        return list(zip(states[::2], states[1::2], strict=True))

    def rebuild(
        self, chunk: int, part: Part, number: int, z: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, h_n, c_n = self._scan(z, state, number, part)
        self.ended += [h_n.detach().flatten(), c_n.detach().flatten()]
        if number == len(self.recurrences) - 1:
            ended, self.ended = torch.cat(self.ended), []
            if ended.numel():
                self.compared[chunk, 0] = (ended - self.wanted).abs().amax()
                self.compared[chunk, 1] = self.wanted.abs().amax()
        return out, h_n, c_n

    def _scan(
        self, z: Tensor, state: State, number: int, part: Part
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.recurrences[number].scan(
            z, state, batch_sizes=part.batch_sizes, resets=part.resets
        )


def _differ(chunk: int, apart: float, largest: float) -> RuntimeError:
    return RuntimeError(
        f"chunk {chunk}: memory='checkpoint' did not compute the states of the forward pass again "
        f"(they differ by {apart:.2g}, the largest is {largest:.2g}), so gradients would be wrong: "
        "the input was changed between the passes, or a module of the stack was, keeps a state, or "
        "draws from a generator of its own; use memory='recompute', or call irevrnn.check_stepwise "
        "on each module to find out which"
    )


def _wide(state: Tensor) -> Tensor:
    return state.float() if state.dtype in HALF else state
