"""The strategy ``reversible``: save the bits that were forgotten, and invert step after step.

Beside it ``store_fixed``, its control: the same arithmetic with every state saved.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence
from irevrnn.strategies import fixed_scan
from irevrnn.strategies.chunks import Part
from irevrnn.strategies.fixed_point import RANGE, largest_weight, rounded_weight
from irevrnn.strategies.rules import check_weight

FloatStates = tuple[Tensor, Tensor]
#: Hashes that are saved of a block's states.
HASHES = 64


class ReversalError(RuntimeError):
    """The reconstructed states differ from those of the forward pass; no gradient is returned."""


class _FixedPoint(ABC):
    """The recurrence in fixed point, shared by both strategies.

    Args:
        name: what an error calls a block, given its number.
    """

    def __init__(self, name: Callable[[int], str]) -> None:
        self.name = name

    def begin(self, states: list[FloatStates], recurrences: list[Recurrence], record: bool) -> None:
        self.record = record
        self.weights = self._all_weights(recurrences)
        self.states = [
            fixed_scan.States.of(h, c, w.u) for (h, c), w in zip(states, self.weights, strict=True)
        ]

    def _all_weights(self, recurrences: list[Recurrence]) -> list[fixed_scan.Weights]:
        """Round the recurrent weights of all blocks, which a single transfer checks."""
        largest = torch.stack([largest_weight(r.u) for r in recurrences]).tolist()
        for number, value in enumerate(largest):
            check_weight(value, self.name(number))
        return [fixed_scan.Weights(*r._replace(u=rounded_weight(r.u))) for r in recurrences]

    def begin_chunk(self, part: Part) -> None:
        self.part = part

    def forward(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        try:
            result = self._run(number, z)
        except fixed_scan.RangeError as error:
            raise OverflowError(
                f"{self.name(number)}, step {self.part.begin + error.step}: a value is NaN or left "
                f"the range of the fixed-point numbers, abs(x) < {RANGE:.0f}; scale the input down,"
                " use norm='layer', or bound the recurrent weights below 1 "
                "(clip_recurrent_weights_)"
            ) from None
        self.states[number] = result.after
        return result.out, result.out[-1]

    @abstractmethod
    def _run(self, number: int, z: Tensor) -> fixed_scan.Pass:
        """Run block ``number`` over the chunk and record what the strategy saves."""

    def finals(self, dtype: torch.dtype) -> list[FloatStates]:
        return [states.values(dtype) for states in self.states]

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        self.dtype = recurrences[0].u.dtype
        with torch.enable_grad():  # the gradient of u passes through its rounding
            self.weights = self._all_weights(recurrences)

    def leaves(self, chunk: int) -> list[FloatStates]:
        zeros = [torch.zeros_like(states.h, dtype=self.dtype) for states in self.states]
        return [(zero.clone().requires_grad_(), zero.requires_grad_()) for zero in zeros]

    def rebuild(
        self, chunk: int, part: Part, number: int, z: Tensor, state: FloatStates
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            result = self._reconstruct(chunk, part, number, z)
        return fixed_scan.WithGradient.apply(
            result, self.weights[number][3:], z, *state, *self.weights[number][:3], part.resets
        )

    @abstractmethod
    def _reconstruct(self, chunk: int, part: Part, number: int, z: Tensor) -> fixed_scan.Pass:
        """Return the pass of block ``number`` over the chunk."""


class Reversible(_FixedPoint):
    """Save final states, forgotten bits, and hashes of every block's states where chunks begin.

    There are :data:`HASHES` hashes of each block, whatever the length: where a sequence has more
    chunks, they are those of every second, fourth, ... chunk. In the backward pass nothing waits
    for the device to say whether states were reconstructed exactly: all hashes are compared
    together, before a gradient is returned.
    """

    def begin(self, states: list[FloatStates], recurrences: list[Recurrence], record: bool) -> None:
        super().begin(states, recurrences, record)
        self.words = [_Words() for _ in states]
        self.hashes: list[Tensor] = []
        self.odd = [_odd_numbers(state) for state in self.states]
        self.chunk, self.stride = 0, 1

    def begin_chunk(self, part: Part) -> None:
        super().begin_chunk(part)
        if self.record and self.chunk % self.stride == 0:
            self.hashes.append(torch.stack(list(map(_hash, self.states, self.odd))))
            if len(self.hashes) > HASHES:
                del self.hashes[1::2]
                self.stride *= 2
        self.chunk += 1

    def _run(self, number: int, z: Tensor) -> fixed_scan.Pass:
        result, words, counts = fixed_scan.forward(
            z, self.states[number], self.weights[number], record=self.record,
            resets=self.part.resets,
        )  # fmt: skip
        if self.record:
            self.words[number].add(words, counts)
        return result

    def saved(self) -> list[Tensor]:
        buffers: list[Tensor] = []
        while self.words:  # free the parts of one block before those of the next are joined
            buffers += self.words.pop(0).join()
        hashes = torch.stack(self.hashes)
        padding = (0, 0, 0, HASHES - len(hashes))  # so that nothing grows with the length
        finals = [state for states in self.states for state in states]
        return [torch.nn.functional.pad(hashes, padding), *finals, *buffers]

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        super().begin_backward(saved, recurrences, chunks)
        count = 3 * len(recurrences)
        self.hashes, finals, buffers = list(saved[0]), saved[1 : 1 + count], saved[1 + count :]
        self.states = [fixed_scan.States(*finals[i : i + 3]) for i in range(0, count, 3)]
        self.odd = [_odd_numbers(state) for state in self.states]
        self.stride = 1
        while chunks > HASHES * self.stride:
            self.stride *= 2
        self.passes: list[tuple[int, int]] = []  # chunk and block
        self.matches: list[Tensor] = []
        self.buffers = [
            fixed_scan.Buffer(words, counts.cumsum(0) - counts, counts)
            for words, counts in zip(buffers[::2], buffers[1::2], strict=True)
        ]

    def _reconstruct(self, chunk: int, part: Part, number: int, z: Tensor) -> fixed_scan.Pass:
        result, self.buffers[number] = fixed_scan.inverse(
            z, self.states[number], self.buffers[number], self.weights[number], part.resets
        )
        self.states[number] = result.before
        same = (self.buffers[number].counts >= 0).all()
        if chunk % self.stride == 0:
            expected = self.hashes[chunk // self.stride][number]
            same &= _hash(result.before, self.odd[number]) == expected
        self.passes.append((chunk, number))
        self.matches.append(same)
        return result

    def finish(self) -> None:
        left = torch.stack([buffer.counts.sum() for buffer in self.buffers])
        *matches, used_up = torch.stack([*self.matches, (left == 0).all()]).tolist()
        for (chunk, number), same in zip(self.passes, matches, strict=True):
            if not same:
                after = f" to {chunk + self.stride - 1}" if self.stride > 1 else ""
                raise ReversalError(
                    f"{self.name(number)}, chunk {chunk}{after}: the reconstructed states differ "
                    "from those of the forward pass. Something changed in between: an input, "
                    "weight or buffer, the number of threads, autocast, or a module that rounds "
                    "differently, has a state of its own or does not treat each step by itself "
                    "(irevrnn.check_stepwise). No gradient is returned; memory='checkpoint' does "
                    "without exact reversal"
                )
        if not used_up:
            number, count = next((i, n) for i, n in enumerate(left.tolist()) if n)
            raise ReversalError(
                f"{self.name(number)}, chunk 0: {count} words are left in the bit buffer before "
                "the first step; no gradient is returned"
            )


class StoreFixed(_FixedPoint):
    """Save every state of the recurrence in fixed point, where :class:`Reversible` inverts it."""

    #: Tensors of one block's pass over one chunk.
    PER_PASS = 8

    def begin(self, states: list[FloatStates], recurrences: list[Recurrence], record: bool) -> None:
        super().begin(states, recurrences, record)
        self.passes: list[Tensor] = []

    def _run(self, number: int, z: Tensor) -> fixed_scan.Pass:
        result, _, _ = fixed_scan.forward(
            z, self.states[number], self.weights[number], save=self.record,
            resets=self.part.resets,
        )  # fmt: skip
        if self.record:
            self.passes += [*result[:2], *result.before, *result.after]
        return result

    def saved(self) -> list[Tensor]:
        return self.passes

    def begin_backward(
        self, saved: Sequence[Tensor], recurrences: list[Recurrence], chunks: int
    ) -> None:
        super().begin_backward(saved, recurrences, chunks)
        self.passes, self.blocks = list(saved), len(recurrences)
        self.states = [self._pass(0, number).before for number in range(self.blocks)]

    def _pass(self, chunk: int, number: int) -> fixed_scan.Pass:
        first = (chunk * self.blocks + number) * self.PER_PASS
        out, values, *states = self.passes[first : first + self.PER_PASS]
        before, after = fixed_scan.States(*states[:3]), fixed_scan.States(*states[3:])
        return fixed_scan.Pass(out, values, before, after)

    def _reconstruct(self, chunk: int, part: Part, number: int, z: Tensor) -> fixed_scan.Pass:
        return self._pass(chunk, number)

    def finish(self) -> None:
        """Do nothing: nothing was consumed."""


def _odd_numbers(states: fixed_scan.States) -> Tensor:
    """Return an odd number for each number of the states, (3, B, H)."""
    shape = (3, *states.h.shape)
    indices = torch.arange(math.prod(shape), device=states.h.device)
    return (indices * 0x1E3779B97F4A7C16 + 0x3F58476D1CE4E5B9).view(shape)


def _hash(states: fixed_scan.States, odd: Tensor) -> Tensor:
    """Return a 64-bit hash: a sum weighted by odd numbers, which any one changed bit changes.

    Sums of integers wrap around alike on every device, in whichever order they are taken.
    """
    return (torch.stack(states) * odd).sum()


class _Words:
    """The words of a block's bit stacks, in parts: those of one chunk, or of several, joined."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.bytes_of_words = self.bytes_of_counts = 0

    def add(self, words: Tensor, counts: Tensor) -> None:
        """Add a chunk's words.

        Parts are joined as soon as their counts, but for those of two parts, take more memory than
        their words: with many stacks and short chunks they would take more than a state.
        """
        self.parts.append((words, counts))
        self.bytes_of_words += words.nbytes
        self.bytes_of_counts += counts.nbytes
        if len(self.parts) > 2 and self.bytes_of_counts > self.bytes_of_words:
            self.parts = [self.join()]
            self.bytes_of_counts = counts.nbytes

    def join(self) -> tuple[Tensor, Tensor]:
        """Return all words, stack by stack, and the number of words of each stack."""
        if len(self.parts) == 1:
            return self.parts[0]
        counts = torch.stack([count for _, count in self.parts]).sum(0)
        joined = self.parts[0][0].new_empty(sum(len(words) for words, _ in self.parts))
        begin = counts.cumsum(0) - counts  # of each stack, then of what a part adds to it
        for words, count in self.parts:
            shift = begin - (count.cumsum(0) - count)
            place = shift.repeat_interleave(count, output_size=len(words))
            joined[place.add_(torch.arange(len(words), device=words.device))] = words
            begin += count
        return joined, counts
