"""How a stack runs in chunks: :class:`Plan`, and :class:`Run` for one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from irevrnn.kernels.observers import observed_as
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Recurrence, State
from irevrnn.strategies.checkpoint import Checkpoint
from irevrnn.strategies.chunks import Chunks
from irevrnn.strategies.dropout_masks import Masks
from irevrnn.strategies.randomness import Randomness
from irevrnn.strategies.reversible import Reversible, StoreFixed
from irevrnn.strategies.stack import Stack, run_modules
from irevrnn.strategies.strategy import Strategy


@dataclass(frozen=True)
class Plan:
    """How a strategy runs, and what that costs if a budget has led to it.

    Attributes:
        memory: the strategy.
        chunk: steps in a chunk; 0 for the strategies that run layer by layer.
        checkpoints: that ``checkpoint`` keeps at once; 0 for one at the beginning of every chunk.
        most_bits: the most bytes of bits that ``reversible`` may store; None for any number.
        graph: the bytes of a chunk's graph, if there is a budget to meet; else 0.
        saved: bytes between forward and backward.
        peak: bytes at the largest moment of the two.
    """

    memory: str
    chunk: int = 0
    checkpoints: int = 0
    most_bits: int | None = None
    graph: int = 0
    saved: int = 0
    peak: int = 0


@dataclass
class Run:
    """A pass over a sequence, forward and backward (:mod:`irevrnn.strategies.chunkwise`).

    Attributes:
        counts: the number of tensors in the first state of each recurrence, or None.
        record: whether a backward pass may follow.
        observed: whether modes or hooks see what is computed.
        autocast: a function that returns the context of the forward pass.
        training: the mode of each module in the forward pass.
        layout: that of the strategy.
        finals: the number of tensors in the last state of each recurrence.
    """

    stack: Stack
    plan: Plan
    chunks: Chunks
    counts: list[int | None]
    return_sequence: bool
    record: bool = False
    observed: bool = False
    layout: Any = None
    finals: Sequence[int] = ()
    masks: Masks = field(default_factory=Masks)
    randomness: Randomness = field(default_factory=Randomness)

    def __post_init__(self) -> None:
        self.autocast = _autocast_of(self.stack.like.device.type)
        self.training = self._modes()

    def _modes(self) -> list[bool]:
        return [each.training for module in self.stack.modules for each in module.modules()]

    def check_modes(self) -> None:
        """Raise a RuntimeError if a module was switched between training and evaluation."""
        if self._modes() != self.training:
            raise RuntimeError(
                f"memory={self.plan.memory!r} computes chunks again in the backward pass, but a "
                "module was switched by train() or eval() since the forward pass"
            )

    def new_strategy(self) -> Strategy:
        """Return the strategy, which has recorded nothing."""
        recurrences: Any = self.stack.recurrences
        if self.plan.memory == "checkpoint":
            return Checkpoint(recurrences, self.plan.checkpoints)
        if self.plan.memory == "reversible":
            return Reversible(recurrences, self.plan.most_bits)
        return StoreFixed(recurrences)

    def take(self, x: Tensor, steps: Steps, recur: Any) -> Tensor:
        """Take a chunk through all modules."""
        return run_modules(self.stack, x, recur, steps, self.masks, not self.return_sequence)

    @contextmanager
    def replayed(self, index: int) -> Iterator[None]:
        """Run a chunk once more as it ran: by the same operators, with the same random numbers."""
        with self.autocast(), self.randomness.replayed(index), observed_as(self.observed):
            yield

    def forward(self, strategy: Strategy, x: Tensor, steps: Steps) -> Tensor:
        """Take a chunk of x through all modules, without a graph."""

        def recur(number: int, recurrence: Recurrence, x: Tensor) -> tuple[Tensor, State]:
            return strategy.forward(number, recurrence.drive(x))

        strategy.begin_chunk(steps)
        return self.take(x[steps.rows].contiguous(), steps, recur)


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that restores the present state of autocast.

    Its cache of cast weights stays off: it would hand casts without gradients, made here, to other
    users of the weights, and those of one chunk's graph to the next.
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype, enabled, cache_enabled=False)
