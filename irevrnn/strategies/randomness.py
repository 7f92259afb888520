"""Replay the random numbers that modules drew in a chunk, when the chunk is computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


class Randomness:
    """The states of the generators before each chunk in which a module drew numbers.

    Modules such as ``nn.Dropout`` draw from the generators of the process. As in
    ``torch.utils.checkpoint``, the numbers are those of the forward pass only if no other thread
    drew any meanwhile. :class:`irevrnn.Dropout` does not need this.
    """

    def __init__(self) -> None:
        self.states: list[list[Tensor] | None] = []
        self.device = torch.device("cpu")

    @contextmanager
    def recorded(self, record: bool, x: Tensor) -> Iterator[None]:
        """Run a chunk of the forward pass, and keep the states before it if it drew numbers."""
        if not record:
            yield
            return
        self.device = x.device
        before = self._states()
        yield
        states = zip(before, self._states(), strict=True)
        drew = not isinstance(x, FakeTensor) and any(not torch.equal(*pair) for pair in states)
        self.states.append(before if drew else None)

    @contextmanager
    def replayed(self, chunk: int) -> Iterator[None]:
        """Run a chunk once more with the same numbers; the generators go on as before."""
        states = self.states[chunk]
        if states is None:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.set_rng_state(states[0])
            for state in states[1:]:
                torch.cuda.set_rng_state(state, self.device)
            yield

    def _states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states
