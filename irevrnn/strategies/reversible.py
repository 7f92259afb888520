"""The strategy ``reversible``: save the bits that were forgotten, and invert step after step.

Beside it ``store_fixed``, its control: the same arithmetic with every state saved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor

from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_scan import Buffer, Pass
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, ExactRecurrence, State
from irevrnn.strategies.strategy import Strategy, flat, leaf

#: Hashes that are saved of a block's states.
HASHES = 64
#: The fewest chunks in a group, and the most groups. A group has a 64-bit count for each stack:
#: with fewer chunks the counts, with more the parts of a group that is not complete, would take
#: more memory.
GROUP, GROUPS = 16, 128


class ReversalError(RuntimeError):
    """The reconstructed states differ from those of the forward pass; no gradient is returned."""


class _FixedPoint(Strategy):
    """The recurrence in fixed point, shared by both strategies."""

    recurrences: Sequence[ExactRecurrence]
    states: list[fixed_scan.States]

    def begin(self, states: list[State], record: bool) -> None:
        self.dtype = flat(states)[0].dtype
        pairs = zip(self.recurrences, states, strict=True)
        self.states = [recurrence.exact_state(state) for recurrence, state in pairs]

    def forward(self, number: int, drive: Drive) -> tuple[Tensor, State]:
        result = self._run(number, drive)
        self.states[number] = result.after
        return result.out, (result.out[-1],)

    @abstractmethod
    def _run(self, number: int, drive: Drive) -> Pass:
        """Run a recurrence over the chunk and record what the strategy saves."""

    def finals(self, dtype: torch.dtype) -> list[State]:
        return [states.numbers.values(dtype) for states in self.states]

    def record(self) -> Any:
        return self.dtype, self.states

    def begin_backward(self, record: Any) -> None:
        dtype, self.states = record
        #: Tensors that carry gradients, not values: the same for every chunk.
        self.carriers: list[State] = []
        for states in self.states:
            zero = torch.zeros_like(states.h, dtype=dtype)
            self.carriers.append((leaf(zero.clone()), leaf(zero)))

    def restore(self, chunk: int, run: Callable[[int], None]) -> list[State]:
        return self.carriers

    def rebuild(self, number: int, drive: Drive, state: State) -> tuple[Tensor, State]:
        with torch.no_grad():
            result = self._reconstruct(number, drive)
        return self.recurrences[number].with_gradient(result, drive, state, self.steps)

    @abstractmethod
    def _reconstruct(self, number: int, drive: Drive) -> Pass:
        """Return the pass of a recurrence over the chunk."""


class BitStacks:
    """The words of a block's bit stacks, from the forward pass to the backward pass.

    The inverse of a chunk takes just the words that its forward pass pushed. So they need never be
    one tensor: they are saved in groups of chunks, each of which is joined when it is complete.
    Joining all of them at the end would take their memory twice.

    Chunks and groups without words are left out, but for the first, whose counts tell how many
    stacks there are: where nothing is forgotten, nothing grows with the length.
    """

    def __init__(self, chunks: int, groups: dict[int, tuple[Tensor, Tensor]] | None = None) -> None:
        self.size = max(GROUP, ceil(chunks / GROUPS))  # chunks in a group
        self.groups = groups or {}
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.group = 0

    def add(self, chunk: int, words: Tensor, counts: Tensor) -> None:
        """Add the words of a chunk, stack by stack, and the number of words of each stack."""
        if chunk // self.size != self.group:
            self._close()
            self.group = chunk // self.size
        if len(words) or chunk == 0:
            self.parts.append((words, counts))

    def _close(self) -> None:
        if self.parts:
            self.groups[self.group] = _joined(self.parts)
            self.parts = []

    def record(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Return all groups, which make these stacks again."""
        self._close()
        return self.groups

    def buffer(self, chunk: int) -> Buffer:
        """Return the words of the group of a chunk, the last of this group."""
        if chunk // self.size in self.groups:
            words, counts = self.groups[chunk // self.size]
            return Buffer(words, counts.cumsum(0) - counts, counts)
        words, counts = next(iter(self.groups.values()))
        return Buffer(words[:0], *2 * [torch.zeros_like(counts)])


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return all words, stack by stack, and the number of words of each stack."""
    if len(parts) == 1:
        return parts[0]
    counts = torch.stack([count for _, count in parts]).sum(0)
    joined = parts[0][0].new_empty(sum(len(words) for words, _ in parts))
    begin = counts.cumsum(0) - counts  # of each stack, then of what a part adds to it
    for words, count in parts:
        shift = begin - (count.cumsum(0) - count)
        place = shift.repeat_interleave(count, output_size=len(words))
        joined[place.add_(torch.arange(len(words), device=words.device))] = words
        begin += count
    return joined, counts


class Reversible(_FixedPoint):
    """Save final states, forgotten bits, and hashes of the states where chunks begin.

    There are :data:`HASHES` hashes of each block, whatever the length: where a sequence has more
    chunks, they are those of every second, third, ... chunk. No state depends on what follows the
    last recurrence, so one more hash is that of all outputs. In the backward pass nothing waits
    for the device to say whether states were reconstructed exactly: all hashes are compared
    together, before a gradient is returned.
    """

    @property
    def stride(self) -> int:
        """The number of chunks from one hash to the next."""
        return ceil(self.chunks / HASHES)

    def begin(self, states: list[State], record: bool) -> None:
        super().begin(states, record)
        self.stacks, self.stored = [BitStacks(self.chunks) for _ in states], 0
        self.of_outputs = self.states[0].partial_words.new_zeros(())
        self.hashes = self.of_outputs.new_zeros(HASHES, len(states))

    def begin_chunk(self, chunk: int, steps: Steps) -> None:
        super().begin_chunk(chunk, steps)
        if chunk % self.stride == 0:
            hashes = [states.hash() for states in self.states]
            torch.stack(hashes, out=self.hashes[chunk // self.stride])

    def note(self, output: Tensor, after: Sequence[Tensor] | None = None) -> None:
        # Odd factors: chunks come in either order, and each may change the sum.
        self.of_outputs.add_(fixed_scan.hash_of(output), alpha=2 * self.chunk + 1)

    def _run(self, number: int, drive: Drive) -> Pass:
        result, words, counts = self.recurrences[number].forward_exact(
            drive, self.states[number], self.steps, record=True
        )
        self.stacks[number].add(self.chunk, words, counts)
        self.stored += words.nbytes
        limit = self.plan.most_bits
        if limit is not None and self.stored > limit:
            raise ValueError(
                f"memory_budget leaves {limit:,} bytes for what the recurrences forget, and after "
                f"{self.steps.end:,} of the steps it takes {self.stored:,}; raise the budget, or "
                "use memory='checkpoint'"
            )
        return result

    def record(self) -> Any:
        stacks = [each.record() for each in self.stacks]
        return super().record(), self.hashes, self.of_outputs, stacks

    def begin_backward(self, record: Any) -> None:
        states, self.expected, of_outputs, stacks = record
        super().begin_backward(states)
        self.hashes, self.of_outputs = torch.zeros_like(self.expected), -of_outputs
        self.stacks = [BitStacks(self.chunks, groups) for groups in stacks]
        self.buffers = [each.buffer(self.chunks - 1) for each in self.stacks]
        self.left = [torch.zeros_like(buffer.counts) for buffer in self.buffers]

    def _reconstruct(self, number: int, drive: Drive) -> Pass:
        result, self.buffers[number] = self.recurrences[number].inverse_exact(
            drive, self.states[number], self.buffers[number], self.steps
        )
        if self.chunk % self.stacks[number].size == 0:  # if all went well, no words are left of it
            self.left[number] += self.buffers[number].counts.abs()
            if self.chunk:
                self.buffers[number] = self.stacks[number].buffer(self.chunk - 1)
        self.states[number] = result.before
        if self.chunk % self.stride == 0:
            self.hashes[self.chunk // self.stride, number] = result.before.hash()
        return result

    def finish(self) -> None:
        # The last chunk first, as they went backwards.
        wrong = (self.hashes != self.expected).flip(0).nonzero().tolist()
        left = torch.stack([counts.sum() for counts in self.left])
        if wrong:
            row, number = wrong[0]
            chunk = (HASHES - 1 - row) * self.stride
            after = f" to {chunk + self.stride - 1}" if self.stride > 1 else ""
            where = f"{self.recurrences[number].name}, chunk {chunk}{after}"
            raise _differ(where, "reconstructed states")
        if left.any():
            raise ReversalError(
                f"{self.recurrences[int(left.argmax())].name}: the inverse did not take as many "
                "bits as were forgotten; no gradient is returned"
            )
        if self.of_outputs != 0:
            raise _differ(f"above the recurrence of {self.recurrences[-1].name}", "outputs")


def _differ(where: str, what: str) -> ReversalError:
    return ReversalError(
        f"{where}: the {what} differ from those of the forward pass. Something changed in between: "
        "an input, weight or buffer, the number of threads, autocast, or a module that rounds "
        "differently, has a state of its own or does not treat each step by itself "
        "(irevrnn.check_stepwise). No gradient is returned; memory='checkpoint' does without exact "
        "reversal"
    )


class StoreFixed(_FixedPoint):
    """Save every state of the recurrence in fixed point, where :class:`Reversible` inverts it."""

    def begin(self, states: list[State], record: bool) -> None:
        super().begin(states, record)
        self.passes: list[Pass] = []

    def _run(self, number: int, drive: Drive) -> Pass:
        result, _, _ = self.recurrences[number].forward_exact(
            drive, self.states[number], self.steps, save=True
        )
        self.passes.append(result)
        return result

    def record(self) -> Any:
        return super().record(), self.passes

    def begin_backward(self, record: Any) -> None:
        states, self.passes = record
        super().begin_backward(states)

    def _reconstruct(self, number: int, drive: Drive) -> Pass:
        return self.passes[self.chunk * len(self.recurrences) + number]
