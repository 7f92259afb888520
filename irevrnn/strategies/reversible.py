"""The strategy ``reversible``: save the bits that were forgotten, and invert step after step.

Beside it ``store_fixed``, its control: the same arithmetic with every state saved.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.strategies import fixed_scan
from irevrnn.strategies.fixed_point import RANGE, largest_weight, rounded_weight
from irevrnn.strategies.rules import RECURRENCE, check_weight

Parameters = dict[str, Tensor]
FloatStates = tuple[Tensor, Tensor]


class ReversalError(RuntimeError):
    """The reconstructed states differ from those of the forward pass; no gradient is returned."""


class _FixedPoint(ABC):
    """The recurrence in fixed point, shared by both strategies.

    Args:
        activation, coupling_activation: names of g and f.
    """

    def __init__(self, activation: str, coupling_activation: str) -> None:
        self.nonlinearities = (activation, coupling_activation)

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        self.record = record
        self.weights = self._all_weights(parameters)
        self.states = [
            fixed_scan.States.of(h, c, w.u)
            for h, c, w in zip(h_0.unbind(), c_0.unbind(), self.weights, strict=True)
        ]

    def _all_weights(self, parameters: list[Parameters]) -> list[fixed_scan.Weights]:
        """Round the recurrent weights of all layers, which a single transfer checks."""
        layers = [[p[name] for name in RECURRENCE] for p in parameters]
        largest = torch.stack([largest_weight(u) for u, _, _ in layers]).tolist()
        for index, value in enumerate(largest):
            check_weight(value, index)
        return [
            fixed_scan.Weights(rounded_weight(u), a, b, *self.nonlinearities) for u, a, b in layers
        ]

    def begin_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        self.offset = offset

    def forward(self, index: int, z: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        try:
            result = self._run(index, z)
        except fixed_scan.RangeError as error:
            raise OverflowError(
                f"layer {index}, step {self.offset + error.step}: a value is NaN or left the range "
                f"of the fixed-point numbers, abs(x) < {RANGE:.0f}; scale the input down, use "
                "norm='layer', or bound the recurrent weights below 1 (clip_recurrent_weights_)"
            ) from None
        self.states[index] = result.after
        return result.out, result.out[-1]

    @abstractmethod
    def _run(self, index: int, z: Tensor) -> fixed_scan.Pass:
        """Run layer ``index`` and record what the strategy saves."""

    def finals(self, dtype: torch.dtype) -> FloatStates:
        pairs = [states.values(dtype) for states in self.states]
        h, c = (torch.stack(states) for states in zip(*pairs, strict=True))
        return h, c

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        self.dtype = parameters[0]["recurrent_weight"].dtype
        with torch.enable_grad():  # the gradient of u passes through its rounding
            self.weights = self._all_weights(parameters)

    def leaves(self, chunk: int) -> list[FloatStates]:
        zeros = [torch.zeros_like(states.h, dtype=self.dtype) for states in self.states]
        return [(zero.clone().requires_grad_(), zero.requires_grad_()) for zero in zeros]

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: FloatStates, p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        with torch.no_grad():
            result = self._reconstruct(chunk, index, z)
        w = self.weights[index]
        return fixed_scan.WithGradient.apply(result, self.nonlinearities, z, *state, w.u, w.a, w.b)

    @abstractmethod
    def _reconstruct(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        """Return the pass of layer ``index`` over the chunk."""


class Reversible(_FixedPoint):
    """Save final states, forgotten bits, and a hash of every layer's states where chunks begin.

    In the backward pass nothing waits for the device to say whether states were reconstructed
    exactly: all hashes are compared together, before a gradient is returned.
    """

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        super().begin(h_0, c_0, parameters, record)
        self.words = [_Words() for _ in parameters]
        self.hashes: list[Tensor] = []
        self.odd = _odd_numbers(self.states[0])

    def begin_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        super().begin_chunk(offset, batch_sizes)
        if self.record:
            self.hashes.append(torch.stack([_hash(states, self.odd) for states in self.states]))

    def _run(self, index: int, z: Tensor) -> fixed_scan.Pass:
        result, words, counts = fixed_scan.forward(
            z, self.states[index], self.weights[index], record=self.record
        )
        if self.record:
            self.words[index].add(words, counts)
        return result

    def saved(self) -> list[Tensor]:
        buffers: list[Tensor] = []
        while self.words:  # free the parts of one layer before those of the next are joined
            buffers += self.words.pop(0).join()
        finals = [torch.stack(states) for states in zip(*self.states, strict=True)]
        return [torch.stack(self.hashes), *finals, *buffers]

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        super().begin_backward(saved, parameters)
        self.border_hashes, h, c, s, *buffers = saved
        self.states = [fixed_scan.States(*state) for state in zip(h, c, s, strict=True)]
        self.odd = _odd_numbers(self.states[0])
        self.passes: list[tuple[int, int]] = []  # chunk and layer
        self.matches: list[Tensor] = []
        self.buffers = [
            fixed_scan.Buffer(words, counts.cumsum(0) - counts, counts)
            for words, counts in zip(buffers[::2], buffers[1::2], strict=True)
        ]

    def _reconstruct(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        result, self.buffers[index] = fixed_scan.inverse(
            z, self.states[index], self.buffers[index], self.weights[index]
        )
        self.states[index] = result.before
        same = _hash(result.before, self.odd) == self.border_hashes[chunk, index]
        self.passes.append((chunk, index))
        self.matches.append(same & (self.buffers[index].counts >= 0).all())
        return result

    def finish(self) -> None:
        left = torch.stack([buffer.counts.sum() for buffer in self.buffers])
        *matches, used_up = torch.stack([*self.matches, (left == 0).all()]).tolist()
        for (chunk, index), same in zip(self.passes, matches, strict=True):
            if not same:
                raise ReversalError(
                    f"layer {index}, chunk {chunk}: the reconstructed states differ from those of "
                    "the forward pass. Something changed in between: an input, weight or buffer, "
                    "the number of threads, autocast, or a projection that rounds differently. No "
                    "gradient is returned; memory='checkpoint' does without exact reversal"
                )
        if not used_up:
            index, count = next((i, n) for i, n in enumerate(left.tolist()) if n)
            raise ReversalError(
                f"layer {index}, chunk 0: {count} words are left in the bit buffer before the "
                "first step; no gradient is returned"
            )


class StoreFixed(_FixedPoint):
    """Save every state of the recurrence in fixed point, where :class:`Reversible` inverts it."""

    #: Tensors of one layer's pass over one chunk.
    PER_PASS = 8

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        super().begin(h_0, c_0, parameters, record)
        self.passes: list[Tensor] = []

    def _run(self, index: int, z: Tensor) -> fixed_scan.Pass:
        result, _, _ = fixed_scan.forward(
            z, self.states[index], self.weights[index], save=self.record
        )
        if self.record:
            self.passes += [*result[:2], *result.before, *result.after]
        return result

    def saved(self) -> list[Tensor]:
        return self.passes

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        super().begin_backward(saved, parameters)
        self.passes, self.layers = list(saved), len(parameters)
        self.states = [self._pass(0, index).before for index in range(self.layers)]

    def _pass(self, chunk: int, index: int) -> fixed_scan.Pass:
        first = (chunk * self.layers + index) * self.PER_PASS
        out, values, *states = self.passes[first : first + self.PER_PASS]
        before, after = fixed_scan.States(*states[:3]), fixed_scan.States(*states[3:])
        return fixed_scan.Pass(out, values, before, after)

    def _reconstruct(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        return self._pass(chunk, index)

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
    """The words of a layer's bit stacks, in parts: those of one chunk, or of several, joined."""

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
