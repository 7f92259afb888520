"""The strategy ``checkpoint``: save states where chunks begin, and run chunks again from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from irevrnn.kernels.allocator import allocate
from irevrnn.kernels.ops import HALF
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, Recurrence, State
from irevrnn.strategies.revolve import first_places, stride
from irevrnn.strategies.strategy import States, Strategy, flat

#: Largest difference between states that are computed twice, relative to the largest of them.
TOLERANCE = 1e-2


class Checkpoint(Strategy):
    """Save the states of all recurrences where chunks begin (equation ``eq:checkpoint``).

    Those at the end are saved, too: in the backward pass, each chunk must end where it did before.

    Args:
        recurrences: of the stack.
        checkpoints: how many states are kept at once: with fewer than chunks, those between are
            computed again in the backward pass (:mod:`irevrnn.strategies.revolve`). 0 keeps all.
    """

    def __init__(self, recurrences: Sequence[Recurrence], checkpoints: int) -> None:
        super().__init__(recurrences)
        self.checkpoints = checkpoints
        self.places: dict[int, int] = {}
        self.initial: States = []
        self.boundaries: list[Tensor] = []

    def begin(self, states: States, record: bool, chunks: int) -> None:
        # Rounded between chunks, results in half precision would depend on the chunks' length.
        pairs = zip(states, self.recurrences, strict=True)
        self.states = [_wide(state) if r.full_precision and state else state for state, r in pairs]
        if record:
            self.initial = list(self.states)
            places = self._first_places(chunks)[1:]  # the first chunk begins with these
            self.places = {place: index for index, place in enumerate(places)}

    def _first_places(self, chunks: int) -> Sequence[int]:
        return first_places(chunks, self.checkpoints) if self.checkpoints else range(chunks)

    def begin_chunk(self, steps: Steps) -> None:
        super().begin_chunk(steps)
        if (index := self.places.get(self.chunk)) is None:
            return
        states = flat(self.states)
        if not self.boundaries:
            # Whole from the start: joined in the end, they would take their memory twice.
            self.boundaries = [allocate(x, [len(self.places), *x.shape]) for x in states]
        for kept, state in zip(self.boundaries, states, strict=True):
            kept[index] = state

    def forward(self, number: int, drive: Drive) -> tuple[Tensor, State]:
        out, state = self._scan(number, drive, self.states[number], self.steps)
        self.states[number] = state
        return out, state

    def finals(self, dtype: torch.dtype) -> list[State]:
        pairs = zip(self.states, self.recurrences, strict=True)
        return [
            tuple(x.to(dtype) for x in state) if r.full_precision else state
            for state, r in pairs
            if state is not None
        ]

    def saved(self) -> list[Tensor]:
        self.layout = [
            [None if state is None else len(state) for state in states]
            for states in (self.states, self.initial)
        ]
        return [*flat(self.states), *flat(self.initial), *self.boundaries]

    def begin_backward(self, saved: Sequence[Tensor], chunks: int) -> None:
        tensors = iter(saved)
        finals, initial = (_nested(tensors, counts) for counts in self.layout)
        self.boundaries, self.begun = list(tensors), flat(finals)
        #: The chunks before which states are kept, each with the states or their place.
        self.kept: list[tuple[int, States | int]] = [(0, initial)]
        later = self._first_places(chunks)[1:]
        self.kept += [(place, index) for index, place in enumerate(later)]
        self.compared = torch.zeros(chunks, 2, device=saved[0].device) if saved else None
        self.ended: list[Tensor] = []

    def restore(self, chunk: int, run: Callable[[int], None]) -> None:
        limit = self.checkpoints or chunk + 1
        while (place := self.kept[-1][0]) < chunk:
            ahead = place + stride(chunk + 1 - place, limit + 1 - len(self.kept))
            self.states = list(self._kept_states(self.kept[-1][1]))
            for index in range(place, ahead):
                run(index)
            self.kept.append((ahead, list(self.states)))

    def _kept_states(self, kept: States | int) -> States:
        if not isinstance(kept, int):
            return kept
        return _nested(iter([x[kept] for x in self.boundaries]), self.layout[0])

    def leaves(self) -> States:
        states = self._kept_states(self.kept.pop()[1])
        self.begun, self.wanted = flat(states), self.begun
        return [None if state is None else tuple(map(leaf, state)) for state in states]

    def rebuild(
        self, chunk: int, steps: Steps, number: int, drive: Drive, state: State | None
    ) -> tuple[Tensor, State]:
        out, after = self._scan(number, drive, state, steps)
        self.ended += after
        if number == len(self.recurrences) - 1:
            self._compare(chunk)
        return out, after

    @torch.no_grad()
    def _compare(self, chunk: int) -> None:
        """Note how far the states after a chunk are from those of the forward pass."""
        both = zip(self.ended, self.wanted, strict=True)
        pairs = [(x, y) for x, y in both if x.is_floating_point() and x.numel()]
        self.ended = []
        if pairs and self.compared is not None:
            columns = zip(*pairs, strict=True)
            found, wanted = (torch.cat([x.flatten() for x in xs]) for xs in columns)
            self.compared[chunk, 0] = (found - wanted).abs().amax()
            self.compared[chunk, 1] = wanted.abs().amax()

    def finish(self) -> None:
        """Compare all chunks at once: on a GPU, each comparison would wait for it."""
        if type(self.compared) is Tensor and not self.compared.is_meta:  # it has values
            for chunk, (apart, largest) in enumerate(self.compared.tolist()):
                if apart > TOLERANCE * largest:
                    raise _differ(chunk, apart, largest)

    def _scan(
        self, number: int, drive: Drive, state: State | None, steps: Steps
    ) -> tuple[Tensor, State]:
        return self.recurrences[number].scan(drive, state, steps, "recompute")


def leaf(x: Tensor) -> Tensor:
    """Return x as a leaf of a new graph, which takes a gradient if numbers like it can."""
    return x.detach().requires_grad_(x.is_floating_point() or x.is_complex())


def _nested(tensors: Iterator[Tensor], counts: list[int | None]) -> States:
    """Return the states that the next tensors are."""
    return [None if count is None else tuple(islice(tensors, count)) for count in counts]


def _wide(state: State) -> State:
    return tuple(x.float() if x.dtype in HALF else x for x in state)


def _differ(chunk: int, apart: float, largest: float) -> RuntimeError:
    return RuntimeError(
        f"chunk {chunk}: memory='checkpoint' did not compute the states of the forward pass again "
        f"(they differ by {apart:.2g}, the largest is {largest:.2g}), so gradients would be wrong: "
        "the input was changed between the passes, or a module of the stack was, keeps a state, or "
        "draws from a generator of its own; use memory='recompute', or call irevrnn.check_stepwise "
        "on each module to find out which"
    )
