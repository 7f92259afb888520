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
from irevrnn.recurrences.fixed_scan import Pass
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, ExactRecurrence, State
from irevrnn.strategies.bit_stacks import GROUP, BitStacks
from irevrnn.strategies.strategy import Strategy, flat, leaf

#: Hashes that are saved of a block's states.
HASHES = 64


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
        self.stacks, self.stored = [BitStacks() for _ in states], 0
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
        self.stacks = [BitStacks(groups) for groups in stacks]
        self.buffers = [each.buffer(self.chunks - 1) for each in self.stacks]
        self.left = [torch.zeros_like(buffer.counts) for buffer in self.buffers]

    def _reconstruct(self, number: int, drive: Drive) -> Pass:
        result, self.buffers[number] = self.recurrences[number].inverse_exact(
            drive, self.states[number], self.buffers[number], self.steps
        )
        if self.chunk % GROUP == 0:  # of this group no words are left if all went well
            self.left[number] += self.buffers[number].counts.abs()
            if self.chunk:
                self.buffers[number] = self.stacks[number].buffer(self.chunk - 1)
        self.states[number] = result.before
        if self.chunk % self.stride == 0:
            self.hashes[self.chunk // self.stride, number] = result.before.hash()
        return result

    def finish(self) -> None:
        left = torch.stack([counts.sum() for counts in self.left])
        differ = torch.cat([(self.hashes != self.expected).flatten(), left != 0])
        *wrong, outputs = torch.cat([differ, self.of_outputs[None] != 0]).tolist()
        if not any(wrong) and not outputs:
            return
        blocks = len(self.recurrences)
        for row in reversed(range(HASHES)):  # the last chunk is the first that went backwards
            for number in range(blocks):
                if wrong[row * blocks + number]:
                    chunk = row * self.stride
                    after = f" to {chunk + self.stride - 1}" if self.stride > 1 else ""
                    where = f"{self.recurrences[number].name}, chunk {chunk}{after}"
                    raise _differ(where, "reconstructed states")
        if any(wrong):
            number = int(left.argmax())
            raise ReversalError(
                f"{self.recurrences[number].name}: the inverse did not take as many bits as were "
                "forgotten; no gradient is returned"
            )
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
