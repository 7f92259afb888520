"""The strategy ``reversible``: save the bits that were forgotten, and invert step after step.

Beside it ``store_fixed``, its control: the same arithmetic with every state saved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_scan import Pass
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, ExactRecurrence, State
from irevrnn.strategies.bit_stacks import GROUP, BitStacks
from irevrnn.strategies.strategy import States, Strategy, flat

#: Hashes that are saved of a block's states.
HASHES = 64


class ReversalError(RuntimeError):
    """The reconstructed states differ from those of the forward pass; no gradient is returned."""


class _FixedPoint(Strategy):
    """The recurrence in fixed point, shared by both strategies."""

    recurrences: Sequence[ExactRecurrence]
    states: list[fixed_scan.States]

    def begin(self, states: States, record: bool, chunks: int) -> None:
        self.layout = flat(states)[0].dtype
        pairs = zip(self.recurrences, states, strict=True)
        self.states = [recurrence.exact_state(state) for recurrence, state in pairs]

    def forward(self, number: int, drive: Drive) -> tuple[Tensor, State]:
        result = self._run(self.recurrences[number], number, drive)
        self.states[number] = result.after
        return result.out, (result.out[-1],)

    @abstractmethod
    def _run(self, recurrence: ExactRecurrence, number: int, drive: Drive) -> Pass:
        """Run a recurrence over the chunk and record what the strategy saves."""

    def finals(self, dtype: torch.dtype) -> list[State]:
        return [states.numbers.values(dtype) for states in self.states]

    def begin_backward(self, saved: Sequence[Tensor], chunks: int) -> None:
        self._begin_inverse(saved, chunks)
        #: Tensors that carry gradients, not values: the same for every chunk.
        self.carriers: States = []
        for states in self.states:
            zero = torch.zeros_like(states.h, dtype=self.layout)
            self.carriers.append((zero.clone().requires_grad_(), zero.requires_grad_()))

    @abstractmethod
    def _begin_inverse(self, saved: Sequence[Tensor], chunks: int) -> None:
        """Begin the backward pass from what :meth:`saved` returned."""

    def leaves(self) -> States:
        return self.carriers

    def rebuild(
        self, chunk: int, steps: Steps, number: int, drive: Drive, state: State | None
    ) -> tuple[Tensor, State]:
        recurrence = self.recurrences[number]
        assert state is not None
        with torch.no_grad():
            result = self._reconstruct(chunk, steps, number, drive)
        return recurrence.with_gradient(result, drive, state, steps)

    @abstractmethod
    def _reconstruct(self, chunk: int, steps: Steps, number: int, drive: Drive) -> Pass:
        """Return the pass of recurrence ``number`` over the chunk."""


class Reversible(_FixedPoint):
    """Save final states, forgotten bits, and hashes of the states where chunks begin.

    There are :data:`HASHES` hashes of each block, whatever the length: where a sequence has more
    chunks, they are those of every second, fourth, ... chunk. No state depends on what follows the
    last recurrence, so one more hash is that of all outputs. In the backward pass nothing waits
    for the device to say whether states were reconstructed exactly: all hashes are compared
    together, before a gradient is returned.

    Args:
        recurrences: of the stack.
        limit: the most bytes that forgotten bits may take; None for any number.
    """

    def __init__(self, recurrences: Sequence[ExactRecurrence], limit: int | None = None) -> None:
        super().__init__(recurrences)
        self.limit, self.stored = limit, 0

    def begin(self, states: States, record: bool, chunks: int) -> None:
        super().begin(states, record, chunks)
        self.stacks = [BitStacks() for _ in states]
        self.hashes: list[Tensor] = []
        self.of_outputs = self.states[0].partial_words.new_zeros(())
        self.stride = 1

    def begin_chunk(self, steps: Steps) -> None:
        super().begin_chunk(steps)
        if self.chunk % self.stride == 0:
            self.hashes.append(torch.stack([states.hash() for states in self.states]))
            if len(self.hashes) > HASHES:
                del self.hashes[1::2]
                self.stride *= 2

    def note_output(self, chunk: int, output: Tensor) -> None:
        # Odd factors: chunks come in either order, and each may change the sum.
        self.of_outputs.add_(fixed_scan.hash_of(output), alpha=2 * chunk + 1)

    def _run(self, recurrence: ExactRecurrence, number: int, drive: Drive) -> Pass:
        result, words, counts = recurrence.forward_exact(
            drive, self.states[number], self.steps, record=True
        )
        self.stacks[number].add(self.chunk, words, counts)
        self.stored += words.nbytes
        if self.limit is not None and self.stored > self.limit:
            raise ValueError(
                f"memory_budget leaves {self.limit:,} bytes for what the recurrences forget, and "
                f"after {self.steps.end:,} of the steps it takes {self.stored:,}; raise the "
                "budget, or use memory='checkpoint'"
            )
        return result

    def saved(self) -> list[Tensor]:
        words = [tensor for stacks in self.stacks for tensor in stacks.saved()]
        hashes = torch.stack(self.hashes)
        padding = (0, 0, 0, HASHES - len(hashes))  # so that nothing grows with the length
        finals = [state for states in self.states for state in states.tensors]
        steps = torch.tensor(self.states[0].steps, device="cpu")
        return [torch.nn.functional.pad(hashes, padding), self.of_outputs, steps, *finals, *words]

    def _begin_inverse(self, saved: Sequence[Tensor], chunks: int) -> None:
        count = 5 * len(self.recurrences)
        self.hashes, self.of_outputs = list(saved[0]), -saved[1]
        steps, finals, words = int(saved[2]), saved[3 : 3 + count], iter(saved[3 + count :])
        self.states = [
            fixed_scan.States.from_tensors(finals[first : first + 5], steps)
            for first in range(0, count, 5)
        ]
        self.stride = 1
        while chunks > HASHES * self.stride:
            self.stride *= 2
        self.checked: list[tuple[int, int, Tensor]] = []  # chunk, block, and hash of its states
        self.stacks = [BitStacks.restored(words) for _ in self.recurrences]
        self.buffers = [stacks.buffer(chunks - 1) for stacks in self.stacks]
        self.left = [torch.zeros_like(buffer.counts) for buffer in self.buffers]

    def _reconstruct(self, chunk: int, steps: Steps, number: int, drive: Drive) -> Pass:
        result, self.buffers[number] = self.recurrences[number].inverse_exact(
            drive, self.states[number], self.buffers[number], steps
        )
        if chunk % GROUP == 0:
            self._next_group(chunk, number)
        self.states[number] = result.before
        if chunk % self.stride == 0:
            self.checked.append((chunk, number, result.before.hash()))
        return result

    def _next_group(self, chunk: int, number: int) -> None:
        """Count the words left of a group, none if all went well; go on with the one before it."""
        self.left[number] += self.buffers[number].counts.abs()
        if chunk:
            self.buffers[number] = self.stacks[number].buffer(chunk - 1)

    def finish(self) -> None:
        expected = [self.hashes[chunk // self.stride][number] for chunk, number, _ in self.checked]
        same = torch.stack([found for *_, found in self.checked]) == torch.stack(expected)
        left = torch.stack([counts.sum() for counts in self.left])
        sums = torch.stack([(left == 0).all(), self.of_outputs == 0])
        *matches, used_up, same_outputs = torch.cat([same, sums]).tolist()
        for (chunk, number, _), match in zip(self.checked, matches, strict=True):
            if not match:
                after = f" to {chunk + self.stride - 1}" if self.stride > 1 else ""
                where = f"{self.recurrences[number].name}, chunk {chunk}{after}"
                raise _differ(where, "reconstructed states")
        if not used_up:
            number = left.tolist().index(max(left.tolist()))
            raise ReversalError(
                f"{self.recurrences[number].name}: the inverse did not take as many bits as were "
                "forgotten; no gradient is returned"
            )
        if not same_outputs:
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

    #: Tensors of one block's pass over one chunk.
    PER_PASS = 8

    def begin(self, states: States, record: bool, chunks: int) -> None:
        super().begin(states, record, chunks)
        self.passes: list[Tensor] = []

    def _run(self, recurrence: ExactRecurrence, number: int, drive: Drive) -> Pass:
        result, _, _ = recurrence.forward_exact(drive, self.states[number], self.steps, save=True)
        self.passes += [*result[:2], *result.before[:3], *result.after[:3]]
        return result

    def saved(self) -> list[Tensor]:
        return self.passes

    def _begin_inverse(self, saved: Sequence[Tensor], chunks: int) -> None:
        self.passes, self.blocks = list(saved), len(self.recurrences)
        self.states = [self._pass(0, number).before for number in range(self.blocks)]

    def _pass(self, chunk: int, number: int) -> Pass:
        first = (chunk * self.blocks + number) * self.PER_PASS
        out, saved, *states = self.passes[first : first + self.PER_PASS]
        none = 2 * [states[0].new_empty(0, dtype=torch.int64)]
        ends = (fixed_scan.States.from_tensors([*states[i : i + 3], *none]) for i in (0, 3))
        return Pass(out, saved, *ends)

    def _reconstruct(self, chunk: int, steps: Steps, number: int, drive: Drive) -> Pass:
        return self._pass(chunk, number)
