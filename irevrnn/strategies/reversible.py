"""The strategy ``reversible``: save the bits that were forgotten, and invert step after step.

Beside it ``store_fixed``, its control: the same arithmetic with every state saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_scan import Buffer, Pass
from irevrnn.recurrences.protocol import Drive, ExactRecurrence, Result, State
from irevrnn.strategies.run import Run
from irevrnn.strategies.strategy import flat, leaf

#: Hashes that are saved of a block's states.
HASHES = 64
#: The most parts that wait to be joined, and the bytes of words from which they are a group: with
#: fewer, the objects that hold a group would take as much.
PARTS, GROUP_BYTES = 16, 2**15


class ReversalError(RuntimeError):
    """The reconstructed states differ from those of the forward pass; no gradient is returned."""


class BitStacks:
    """The words of a block's bit stacks, from the forward pass to the backward pass.

    They are saved in groups of chunks, joined as soon as there are enough: joining all of them at
    the end would take their memory twice. Chunks without words are left out, but for the first,
    whose counts tell how many stacks there are: where nothing is forgotten, nothing grows with the
    length.

    Attributes:
        groups: words and counts, by the last chunk of each group.
    """

    def __init__(self, chunks: int, groups: dict[int, tuple[Tensor, Tensor]] | None = None) -> None:
        self.chunks, self.groups = chunks, groups or {}
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, chunk: int, words: Tensor, counts: Tensor) -> None:
        """Add the words of a chunk, stack by stack, and the number of words of each stack."""
        parts, last = self._parts, chunk + 1 == self.chunks
        if len(words) or chunk == 0:
            parts.append((words, counts))
        full = sum(part.nbytes for part, _ in parts) >= max(GROUP_BYTES, 4 * counts.nbytes)
        if parts and (full or last or len(parts) == PARTS):
            parts[:] = [_joined(parts)]
        if parts and (full or last):
            self.groups[chunk] = parts.pop()

    def buffer(self, chunk: int) -> Buffer:
        """Return the words of the group that ends with a chunk; none if no group does."""
        if chunk in self.groups:
            words, counts = self.groups[chunk]
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


class Reversible(Run):
    """Save final states, forgotten bits, and hashes of the states where chunks begin.

    There are at most :data:`HASHES` of each block: of every second, third, ... chunk in a long
    sequence. No state depends on what follows the last recurrence, so one more hash is that of all
    outputs. They are compared together, before a gradient is returned: nothing else waits for the
    device to say whether states were reconstructed exactly.

    ``store_fixed`` saves every state, too, and inverts nothing.
    """

    recurrences: Sequence[ExactRecurrence]
    states: list[fixed_scan.States]

    @property
    def stride(self) -> int:
        """The number of chunks from one hash to the next."""
        return ceil(self.chunks / HASHES)

    def begin(self, states: list[State]) -> None:
        if (reset := self.all_steps.begins_anew) is not None:  # whatever they were
            ended = self.all_steps.batch - len(reset)
            reset = nn.functional.pad(reset, (0, ended)).unsqueeze(1)
            states = [tuple(x.masked_fill(reset, 0) for x in state) for state in states]
        self.dtype = flat(states)[0].dtype
        pairs = zip(self.recurrences, states, strict=True)
        self.states = [recurrence.exact_state(state) for recurrence, state in pairs]
        self.stacks, self.stored = [BitStacks(self.chunks) for _ in states], 0
        self.passes: list[Pass] = []
        self.of_outputs = self.states[0].partial_words.new_zeros(())
        self.hashes = self.of_outputs.new_zeros(HASHES, len(states))

    def advance(self, number: int, drive: Drive) -> Result:
        if number == 0 and self.chunk % self.stride == 0:
            hashes = [states.hash() for states in self.states]
            torch.stack(hashes, out=self.hashes[self.chunk // self.stride])
        before, control = self.states[number], self.plan.memory == "store_fixed"
        result, words, counts = self.recurrences[number].forward_exact(
            drive, before, self.steps, record=not control, save=control
        )
        if control:
            self.passes.append(result)
        self.states[number] = result.after
        self.stacks[number].add(self.chunk, words, counts)
        self.stored += words.nbytes
        limit = self.plan.most_bits
        if limit is not None and self.stored > limit:
            raise ValueError(
                f"memory_budget leaves {limit:,} bytes for what the recurrences forget, and after "
                f"{self.steps.end:,} of the steps it takes {self.stored:,}; raise the budget, or "
                "use memory='checkpoint'"
            )
        return result.out, (result.out[-1],)

    def note(self, output: Tensor, after: Sequence[Tensor] | None = None) -> None:
        if self.shows:  # odd factors: chunks come in either order, and each may change the sum
            self.of_outputs.add_(fixed_scan.hash_of(output), alpha=2 * self.chunk + 1)

    def finals(self, dtype: torch.dtype) -> list[State]:
        return [states.numbers.values(dtype) for states in self.states]

    def record(self) -> Any:
        stacks = [each.groups for each in self.stacks]
        return self.dtype, self.states, self.hashes, self.of_outputs, stacks, self.passes

    def begin_backward(self, record: Any) -> None:
        dtype, self.states, self.expected, of_outputs, stacks, self.passes = record
        #: Tensors that carry gradients, not values: the same for every chunk.
        self.carriers: list[State] = [
            tuple(leaf(torch.zeros_like(x, dtype=dtype)) for x in states[:2])
            for states in self.states
        ]
        self.hashes, self.of_outputs = torch.zeros_like(self.expected), -of_outputs
        self.stacks = [BitStacks(self.chunks, groups) for groups in stacks]
        self.buffers = [each.buffer(self.chunks - 1) for each in self.stacks]

    def restore(self, chunk: int) -> list[State]:
        return self.carriers

    def advance_again(self, number: int, drive: Drive, state: State) -> Result:
        with torch.no_grad():
            if self.passes:
                result = self.passes[self.chunk * len(self.recurrences) + number]
            else:
                result, self.buffers[number] = self.recurrences[number].inverse_exact(
                    drive, self.states[number], self.buffers[number], self.steps
                )
                if self.chunk - 1 in self.stacks[number].groups:  # no words of the later are left
                    self.buffers[number] = self.stacks[number].buffer(self.chunk - 1)
            self.states[number] = result.before
            if self.chunk % self.stride == 0:
                self.hashes[self.chunk // self.stride, number] = result.before.hash()
        return self.recurrences[number].with_gradient(result, drive, state, self.steps)

    def finish(self) -> None:
        # The last chunk first, as they went backwards.
        if wrong := (self.hashes != self.expected).flip(0).nonzero().tolist():
            row, number = wrong[0]
            chunk = (HASHES - 1 - row) * self.stride
            after = f" to {chunk + self.stride - 1}" if self.stride > 1 else ""
            where = f"{self.recurrences[number].name}, chunk {chunk}{after}"
            raise _differ(where, "reconstructed states")
        if self.of_outputs != 0:
            raise _differ(f"above the recurrence of {self.recurrences[-1].name}", "outputs")


def _differ(where: str, what: str) -> ReversalError:
    return ReversalError(
        f"{where}: the {what} differ from those of the forward pass. Something changed in between: "
        "an input, weight or buffer, the number of threads, autocast, or a module that has a state "
        "of its own or does not treat each step by itself (irevrnn.check_stepwise). No gradient is "
        "returned; memory='checkpoint' does without exact reversal"
    )
