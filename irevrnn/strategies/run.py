"""One pass through a stack, chunk by chunk: :class:`Run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from irevrnn.kernels.allocator import allocate
from irevrnn.kernels.observers import observed_as
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, Recurrence, State
from irevrnn.strategies.checkpoint import Checkpoint
from irevrnn.strategies.chunk_graph import Gradients
from irevrnn.strategies.dropout_masks import Masks
from irevrnn.strategies.reversible import Reversible, StoreFixed
from irevrnn.strategies.stack import Stack, run_modules
from irevrnn.strategies.strategy import Plan, Strategy, add_bits, flat

_STRATEGIES: dict[str, type[Strategy]] = {
    "checkpoint": Checkpoint,
    "reversible": Reversible,
    "store_fixed": StoreFixed,
}


class Run:
    """A pass over a sequence, forward and backward.

    Attributes:
        record: whether a backward pass may follow.
        observed: whether modes or hooks see what is computed.
        finals: the number of tensors in the last state of each recurrence.
        masks: of dropout; none between the passes, where autograd saves them.
        chosen_bits: that the input chose to forget in the chunks so far.
        drawn: the states of the generators before each chunk in which a module drew numbers. As in
            ``torch.utils.checkpoint``, the numbers are those of the forward pass only if no other
            thread drew any meanwhile. :class:`irevrnn.Dropout` does not need this.
    """

    finals: list[int]

    def __init__(
        self, stack: Stack, plan: Plan, device: torch.device, steps: Steps, return_sequence: bool,
        record: bool, observed: bool,
    ) -> None:  # fmt: skip
        self.stack, self.plan, self.device, self.steps = stack, plan, device, steps
        self.return_sequence, self.chunks = return_sequence, ceil(steps.end / plan.chunk)
        self.record, self.observed = record, observed
        self.masks: Masks = {}
        self.chosen_bits: State = ()
        self.drawn: dict[int, list[Tensor]] = {}
        self._autocast = _autocast_of(device.type)
        self._training = self._modes()

    def _modes(self) -> list[bool]:
        return [each.training for module in self.stack.modules for each in module.modules()]

    def check_modes(self) -> None:
        """Raise a RuntimeError if a module was switched between training and evaluation."""
        if self._modes() != self._training:
            raise RuntimeError(
                f"memory={self.plan.memory!r} computes chunks again in the backward pass, but a "
                "module was switched by train() or eval() since the forward pass"
            )

    @contextmanager
    def ready(self, gradients: Gradients | None = None) -> Iterator[None]:
        """Run by the operators of the forward pass, and keep what these make of parameters.

        In the backward pass, ``gradients`` get those of blocks that run together.
        """
        blocks = self.stack.compiled_blocks
        try:
            for block in blocks:
                block.begin(None if gradients is None else gradients.leaves)
            with self._autocast(), observed_as(self.observed):
                yield
            if gradients is not None:
                for block in blocks:
                    gradients.add_to(block.parameters.gradients())
        finally:
            for block in blocks:
                block.end()

    def new_strategy(self) -> Strategy:
        """Return the strategy, which has recorded nothing."""
        kind = _STRATEGIES[self.plan.memory]
        return kind(self.stack.recurrences, self.plan, self.chunks)

    def part(self, index: int) -> Steps:
        """Return the steps of a chunk."""
        begin = index * self.plan.chunk
        return self.steps.part(begin, min(self.steps.end, begin + self.plan.chunk))

    def _take(self, x: Tensor, steps: Steps, advance: Callable[[int, Drive], Any]) -> Tensor:
        """Take a chunk through all modules; ``advance`` runs a recurrence, given its number."""

        def recur(number: int, recurrence: Recurrence, x: Tensor) -> tuple[Tensor, State]:
            drive = recurrence.drive(x)
            self.chosen_bits = add_bits(self.chosen_bits, recurrence.chosen_bits(drive))
            return advance(number, drive)

        return run_modules(self.stack, x, recur, steps, self.masks, not self.return_sequence)

    def chunk(self, strategy: Strategy, x: Tensor, index: int) -> Tensor:
        """Take a chunk of x through all modules, without a graph."""
        strategy.begin_chunk(index, steps := self.part(index))
        return self._take(x[steps.rows].contiguous(), steps, strategy.forward)

    def rebuild(
        self, strategy: Strategy, x: Tensor, leaves: list[State]
    ) -> tuple[list[Tensor], Tensor]:
        """Run a chunk once more, with its graph; return the states after it, and the output.

        Behind the states are the bits that the input chose to forget, if it chooses any.
        """
        finals: list[State] = []
        self.chosen_bits = ()

        def advance(number: int, drive: Drive) -> tuple[Tensor, State]:
            out, after = strategy.rebuild(number, drive, leaves[number])
            finals.append(after)
            return out, after

        with torch.enable_grad(), self.replayed(strategy.chunk):
            # Tools that watch modules, such as FlopCounterMode, take no leaf within autograd.grad.
            top = self._take(x.view_as(x), strategy.steps, advance)
        after = flat(finals)
        strategy.note(top.detach(), after)
        return [*after, *self.chosen_bits], top

    def forward(self, strategy: Strategy, x: Tensor) -> Tensor:
        """Take all of x through all modules; return the output, of all steps or of the last."""
        output: Tensor | None = None
        versions = self._versions(x)
        for index in range(self.chunks):
            before = self._generators()
            new = self.chunk(strategy, x, index)
            strategy.note(new)
            pairs = zip(before, self._generators(), strict=True)
            if not isinstance(x, FakeTensor) and not all(torch.equal(*p) for p in pairs):
                self.drawn[index] = before
            steps = strategy.steps
            if output is None:
                length = x.shape[0] if self.return_sequence else steps.batch
                output = allocate(new, [length, *new.shape[1:]])
            output[steps.rows if self.return_sequence else steps.ended] = new
        for what, version in self._versions(x).items():
            if versions.get(what) != version:
                raise ValueError(
                    f"{what} while it runs, but memory={self.plan.memory!r} runs modules again and "
                    "needs the same results each time; use memory='recompute', or a module that "
                    "keeps no state and does not work in place"
                )
        assert output is not None  # there is at least one step
        return output

    def _versions(self, x: Tensor) -> dict[str, tuple[int, int]]:
        """Return how often what modules must not change was written to, by what an error says."""
        if not self.record:
            return {}
        names = self.stack.names
        watched = {f"{names[0]}, or a module above it, changes the input in place": x}
        for name, module in zip(names, self.stack.modules, strict=True):
            buffers = module.named_buffers()
            watched |= {f"{name} changes its buffer {buffer!r}": b for buffer, b in buffers}
        return {what: (id(t), 0 if t.is_inference() else t._version) for what, t in watched.items()}

    def _generators(self) -> list[Tensor]:
        """Return the states of the generators that modules such as ``nn.Dropout`` draw from."""
        if not self.record:
            return []
        cuda = [self.device] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda)]

    @contextmanager
    def replayed(self, index: int) -> Iterator[None]:
        """Run a chunk with the random numbers of the forward pass; generators go on as before."""
        if (drawn := self.drawn.get(index)) is None:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.set_rng_state(drawn[0])
            for state in drawn[1:]:
                torch.cuda.set_rng_state(state, self.device)
            yield


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that restores the present state of autocast.

    Its cache of cast weights stays off: it would hand casts without gradients, made here, to other
    users of the weights, and those of one chunk's graph to the next.
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype, enabled, cache_enabled=False)
