"""A pass over a sequence, chunk by chunk: :class:`Run`, of which each strategy is a subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
from irevrnn.recurrences.protocol import Drive, Recurrence, Result, State
from irevrnn.strategies.chunk_graph import Gradients
from irevrnn.strategies.dropout_masks import Masks
from irevrnn.strategies.stack import Stack, run_modules
from irevrnn.strategies.strategy import Plan, add_bits, flat


class Run(ABC):
    """A strategy in a pass over x: it saves little, and rebuilds chunks from that.

    The forward pass is made by one copy of an object, and the backward pass by another.

    Attributes:
        records: whether a backward pass may follow.
        observed: whether modes or hooks see what is computed.
        masks: of dropout; none between the passes, where autograd saves them.
        chosen_bits: that the input chose to forget in the chunks so far.
        drawn: the states of the generators before each chunk in which a module drew numbers. As in
            ``torch.utils.checkpoint``, the numbers are those of the forward pass only if no other
            thread drew any meanwhile. :class:`irevrnn.Dropout` does not need this.
        chunk, steps: the chunk that runs: its number, and its steps.
        counts: of the tensors in the last state of each recurrence.
    """

    x: Tensor
    chunk: int
    steps: Steps
    counts: list[int]

    def __init__(
        self, stack: Stack, plan: Plan, device: torch.device, steps: Steps, return_sequence: bool,
        records: bool, observed: bool,
    ) -> None:  # fmt: skip
        self.stack, self.plan, self.device, self.all_steps = stack, plan, device, steps
        self.return_sequence, self.chunks = return_sequence, ceil(steps.end / plan.chunk)
        self.recurrences: Any = stack.recurrences
        self.records, self.observed = records, observed
        self.masks: Masks = {}
        self.chosen_bits: State = ()
        self.drawn: dict[int, list[Tensor]] = {}
        self._autocast = _autocast_of(device.type)
        self._training = self._modes()

    @abstractmethod
    def begin(self, states: list[State]) -> None:
        """Begin the forward pass."""

    @abstractmethod
    def advance(self, number: int, drive: Drive) -> Result:
        """Run recurrence ``number`` over the chunk; return h, and the state after the last step."""

    def note(self, output: Tensor, after: Sequence[Tensor] | None = None) -> None:
        """Take note of the chunk's output, and in the backward pass of the states after it."""
        return None

    @abstractmethod
    def finals(self, dtype: torch.dtype) -> list[State]:
        """Return the states of every recurrence after the last step."""

    @abstractmethod
    def record(self) -> Any:
        """Return what is saved for the backward pass, a tree of tensors."""

    @abstractmethod
    def begin_backward(self, record: Any) -> None:
        """Begin the backward pass from a record."""

    @abstractmethod
    def restore(self, chunk: int) -> list[State]:
        """Return the states where a chunk begins, as leaves of its graph."""

    @abstractmethod
    def advance_again(self, number: int, drive: Drive, state: State) -> Result:
        """Return what :meth:`advance` does, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if something differed from the forward pass."""
        return None

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
                    gradients.add(block.parameters.gradients())
        finally:
            for block in blocks:
                block.end()

    def take_up(self, chunk: int) -> None:
        """Turn to a chunk."""
        begin = chunk * self.plan.chunk
        end = min(self.all_steps.end, begin + self.plan.chunk)
        self.chunk, self.steps = chunk, self.all_steps.part(begin, end)

    def _take(self, x: Tensor, advance: Callable[[int, Drive], Any]) -> Tensor:
        """Take the chunk through all modules."""

        def recur(number: int, recurrence: Recurrence, x: Tensor) -> Result:
            drive = recurrence.drive(x)
            result = advance(number, drive)
            self.chosen_bits = add_bits(self.chosen_bits, recurrence.chosen_bits(drive))
            return result

        return run_modules(self.stack, x, recur, self.steps, self.masks, not self.return_sequence)

    def run_chunk(self, chunk: int) -> Tensor:
        """Take a chunk through all modules, without a graph."""
        self.take_up(chunk)
        return self._take(self.x[self.steps.rows].contiguous(), self.advance)

    def rebuild(self, x: Tensor, leaves: list[State]) -> tuple[list[Tensor], Tensor]:
        """Run the chunk once more, with its graph; return the states after it, and the output.

        Behind the states are the bits that the input chose to forget, if it chooses any.
        """
        finals: list[State] = []
        self.chosen_bits = ()

        def advance(number: int, drive: Drive) -> Result:
            out, after = self.advance_again(number, drive, leaves[number])
            finals.append(after)
            return out, after

        with torch.enable_grad(), self.replayed(self.chunk):
            # Tools that watch modules, such as FlopCounterMode, take no leaf within autograd.grad.
            top = self._take(x.view_as(x), advance)
        after = flat(finals)
        self.note(top.detach(), after)
        return [*after, *self.chosen_bits], top

    @property
    def shows(self) -> bool:
        """Whether the output has a part from the chunk."""
        return self.return_sequence or self.steps.ends_some

    @property
    def place(self) -> Any:
        """Where the chunk has its part of the output."""
        return self.steps.rows if self.return_sequence else self.steps.ended

    def forward(self) -> Tensor:
        """Take all of x through all modules; return the output, of all steps or of the last."""
        output: Tensor | None = None
        versions, after = self._versions(), self._generators()
        for chunk in range(self.chunks):
            before = after
            new = self.run_chunk(chunk)
            self.note(new)
            pairs = zip(before, after := self._generators(), strict=True)
            if not isinstance(self.x, FakeTensor) and not all(torch.equal(*p) for p in pairs):
                self.drawn[chunk] = before
            if output is None:
                length = self.x.shape[0] if self.return_sequence else self.steps.batch
                output = allocate(new, [length, *new.shape[1:]])
            if self.shows:
                output[self.place] = new
        for what, version in self._versions().items():
            if versions.get(what) != version:
                raise ValueError(
                    f"{what} while it runs, but memory={self.plan.memory!r} runs modules again and "
                    "needs the same results each time; use memory='recompute', or a module that "
                    "keeps no state and does not work in place"
                )
        assert output is not None  # there is at least one step
        return output

    def _versions(self) -> dict[str, tuple[int, int]]:
        """Return how often what modules must not change was written to, by what an error says."""
        if not self.records:
            return {}
        names = self.stack.names
        watched = {f"{names[0]}, or a module above it, changes the input in place": self.x}
        for name, module in zip(names, self.stack.modules, strict=True):
            buffers = module.named_buffers()
            watched |= {f"{name} changes its buffer {buffer!r}": b for buffer, b in buffers}
        return {what: (id(t), 0 if t.is_inference() else t._version) for what, t in watched.items()}

    def _generators(self) -> list[Tensor]:
        """Return the states of the generators that modules such as ``nn.Dropout`` draw from."""
        if not self.records:
            return []
        cuda = [self.device] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda)]

    @contextmanager
    def replayed(self, chunk: int) -> Iterator[None]:
        """Run a chunk with the random numbers of the forward pass; generators go on as before."""
        if (drawn := self.drawn.get(chunk)) is None:
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
