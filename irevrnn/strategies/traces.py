"""What each strategy keeps of the way forward, and how it gets a chunk's states back from it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from irevrnn.functional import HALF, scan
from irevrnn.strategies import fixed_scan
from irevrnn.strategies.fixed_point import RANGE, check_weight, largest_weight, rounded_weight

Parameters = dict[str, Tensor]
#: The names of u, a and b among a layer's parameters.
RECURRENCE = ("recurrent_weight", "coupling_a", "coupling_b")


class ReversalError(RuntimeError):
    """Going back did not meet the states of the way forward; no gradient is returned."""


class Trace(Protocol):
    """What a strategy keeps of the way forward, and how it gets a chunk's states back from it."""

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        """Start the forward pass; without ``record`` there will be no backward pass."""

    def start_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        """Start a chunk whose first step is ``offset``, packed if ``batch_sizes`` are given."""

    def forward(self, index: int, z: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        """Run layer ``index`` over the chunk; returns ``out`` and ``h_n``."""

    def finals(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``h_n`` and ``c_n`` of all layers, (L, B, H)."""

    def saved(self) -> list[Tensor]:
        """All that is kept for the backward pass."""

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        """Start the backward pass from what :meth:`saved` returned."""

    def leaves(self, chunk: int) -> list[tuple[Tensor, Tensor]]:
        """(h, c) of every layer where the chunk begins, for their gradients."""

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: tuple[Tensor, Tensor], p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The chunk of layer ``index`` once more, as a function of z, ``state`` and weights."""

    def check_empty(self) -> None:
        """Raise if something is left over at the beginning of time."""


class Checkpoint:
    """States at the beginning of every chunk.

    Args:
        activation, coupling_activation: names of g and f.
    """

    def __init__(self, activation: str, coupling_activation: str) -> None:
        self.options = (activation, coupling_activation)

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        if h_0.dtype in HALF:  # rounding at the borders would make the results depend on these
            h_0, c_0 = h_0.float(), c_0.float()
        self.states = list(zip(h_0.unbind(), c_0.unbind(), strict=True))
        self.borders: list[Tensor] = []
        self.record = record

    def start_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        self.batch_sizes = batch_sizes
        if self.record:
            self.borders.append(torch.stack([torch.stack(pair) for pair in self.states]))

    def forward(self, index: int, z: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        out, h, c = scan(
            z, *self.states[index], *recurrence(p), *self.options, batch_sizes=self.batch_sizes
        )
        self.states[index] = h, c
        return out, h

    def finals(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        h, c = (torch.stack(states).to(dtype) for states in zip(*self.states, strict=True))
        return h, c

    def saved(self) -> list[Tensor]:
        return [torch.stack(self.borders)]

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        (self.all_borders,) = saved

    def leaves(self, chunk: int) -> list[tuple[Tensor, Tensor]]:
        border = self.all_borders[chunk]
        return [
            (h.detach().requires_grad_(), c.detach().requires_grad_()) for h, c in border.unbind()
        ]

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: tuple[Tensor, Tensor], p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return scan(z, *state, *recurrence(p), *self.options, batch_sizes=batch_sizes)

    def check_empty(self) -> None:
        """Nothing was consumed."""


class _FixedPoint(ABC):
    """The fixed-point recurrence: what its two strategies share.

    Args:
        activation, coupling_activation: names of g and f.
    """

    def __init__(self, activation: str, coupling_activation: str) -> None:
        fixed_scan.check_invertible(activation)
        self.options = (activation, coupling_activation)

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        self.record = record
        self.weights = self._all_weights(parameters)
        self.states = [
            fixed_scan.States.of(h, c, w.u)
            for h, c, w in zip(h_0.unbind(), c_0.unbind(), self.weights, strict=True)
        ]

    def _all_weights(self, parameters: list[Parameters]) -> list[fixed_scan.Weights]:
        """The rounded weights of every layer, which are checked all at once."""
        layers = [recurrence(p) for p in parameters]
        largest_of_layers = torch.stack([largest_weight(u) for u, _, _ in layers])
        for index, largest in enumerate(largest_of_layers.tolist()):
            try:
                check_weight(largest)
            except ValueError as error:
                raise ValueError(f"layer {index}: {error}") from None
        return [fixed_scan.Weights(rounded_weight(u), a, b, *self.options) for u, a, b in layers]

    def start_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        assert batch_sizes is None  # the layer refuses packed input
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
        """Run layer ``index`` and keep what the strategy keeps."""

    def finals(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        pairs = [states.values(dtype) for states in self.states]
        h, c = (torch.stack(states) for states in zip(*pairs, strict=True))
        return h, c

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        self.dtype = parameters[0]["recurrent_weight"].dtype
        with torch.enable_grad():  # the gradient of u passes through its rounding
            self.weights = self._all_weights(parameters)

    def leaves(self, chunk: int) -> list[tuple[Tensor, Tensor]]:
        zeros = [torch.zeros_like(states.h, dtype=self.dtype) for states in self.states]
        return [(zero.clone().requires_grad_(), zero.requires_grad_()) for zero in zeros]

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: tuple[Tensor, Tensor], p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        weights = self.weights[index]
        get_back = partial(self._get_back, chunk, index, z)
        return fixed_scan.WithGradient.apply(
            get_back, self.options, z, *state, weights.u, weights.a, weights.b
        )

    @abstractmethod
    def _get_back(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        """The pass of layer ``index`` over the chunk."""


class Reversible(_FixedPoint):
    """Final states, forgotten bits, and a hash of every layer's states where chunks begin.

    Going back, no pass waits for a device to say whether it met the states of the way forward: all
    is looked at together before gradients are returned.
    """

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        super().begin(h_0, c_0, parameters, record)
        self.words = [_Words() for _ in parameters]
        self.hashes: list[Tensor] = []
        self.odd = _odd_numbers(self.states[0])

    def start_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        super().start_chunk(offset, batch_sizes)
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
        while self.words:  # a layer's parts go before those of the next are joined
            buffers += self.words.pop(0).join()
        finals = [torch.stack(states) for states in zip(*self.states, strict=True)]
        return [torch.stack(self.hashes), *finals, *buffers]

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        super().begin_backward(saved, parameters)
        self.border_hashes, h, c, s, *buffers = saved
        self.states = [fixed_scan.States(*state) for state in zip(h, c, s, strict=True)]
        self.odd = _odd_numbers(self.states[0])
        self.passes: list[tuple[int, int]] = []  # chunk and layer
        self.met: list[Tensor] = []
        self.buffers = []
        for words, counts in zip(buffers[::2], buffers[1::2], strict=True):
            self.buffers.append(fixed_scan.Buffer(words, counts.cumsum(0) - counts, counts))

    def _get_back(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        result, self.buffers[index] = fixed_scan.inverse(
            z, self.states[index], self.buffers[index], self.weights[index]
        )
        self.states[index] = result.before
        met = _hash(result.before, self.odd) == self.border_hashes[chunk, index]
        self.passes.append((chunk, index))
        self.met.append(met & (self.buffers[index].counts >= 0).all())
        return result

    def check_empty(self) -> None:
        left = torch.stack([buffer.counts.sum() for buffer in self.buffers])
        *met, last_met = torch.stack([*self.met, (left == 0).all()]).tolist()
        for (chunk, index), good in zip(self.passes, met, strict=True):
            if not good:
                raise ReversalError(
                    f"layer {index}, chunk {chunk}: going back did not meet the states of the way "
                    "forward. Something changed in between: an input, weight or buffer, the number "
                    "of threads, autocast, or a projection that rounds differently. No gradient is "
                    "returned; memory='checkpoint' does without exact reversal"
                )
        if not last_met:
            index, count = next((i, n) for i, n in enumerate(left.tolist()) if n)
            raise ReversalError(
                f"layer {index}, chunk 0: {count} words are left in the bit buffer at the "
                "beginning of time; no gradient is returned"
            )


class StoreFixed(_FixedPoint):
    """Every state of the fixed-point recurrence, where :class:`Reversible` goes back."""

    #: Tensors of one layer's pass over one chunk.
    PER_PASS = 8

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        super().begin(h_0, c_0, parameters, record)
        self.passes: list[Tensor] = []

    def _run(self, index: int, z: Tensor) -> fixed_scan.Pass:
        result, _, _ = fixed_scan.forward(
            z, self.states[index], self.weights[index], hold=self.record
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

    def _get_back(self, chunk: int, index: int, z: Tensor) -> fixed_scan.Pass:
        return self._pass(chunk, index)

    def check_empty(self) -> None:
        """Nothing was consumed."""


#: By the value of ``memory``.
TRACES: dict[str, Callable[[str, str], Trace]] = {
    "checkpoint": Checkpoint,
    "reversible": Reversible,
    "store_fixed": StoreFixed,
}


def recurrence(p: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """u, a and b among a layer's parameters."""
    u, a, b = (p[name] for name in RECURRENCE)
    return u, a, b


def _odd_numbers(states: fixed_scan.States) -> Tensor:
    """One for each number of the states, (3, B, H)."""
    shape = (3, *states.h.shape)
    indices = torch.arange(math.prod(shape), device=states.h.device)
    return (indices * 0x1E3779B97F4A7C16 + 0x3F58476D1CE4E5B9).view(shape)


def _hash(states: fixed_scan.States, odd: Tensor) -> Tensor:
    """A 64-bit hash: a sum weighted by odd numbers, so that any one changed bit changes it.

    Sums of integers wrap around alike on every device, in whichever order they are taken.
    """
    return (torch.stack(states) * odd).sum()


class _Words:
    """The words of a layer's stacks, in parts: those that one chunk pushed, or several joined."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.bytes_of_words = self.bytes_of_counts = 0

    def add(self, words: Tensor, counts: Tensor) -> None:
        """Add a chunk's words; the counts of all parts take no more memory than their words.

        But for those of two parts. They would take more than a state where there are many stacks
        and short chunks.
        """
        self.parts.append((words, counts))
        self.bytes_of_words += words.nbytes
        self.bytes_of_counts += counts.nbytes
        if len(self.parts) > 2 and self.bytes_of_counts > self.bytes_of_words:
            self.parts = [self.join()]
            self.bytes_of_counts = counts.nbytes

    def join(self) -> tuple[Tensor, Tensor]:
        """All words, stack by stack, and how many each has."""
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
