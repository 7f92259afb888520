"""A whole stack under each strategy, and peers of its size, for ``make bench`` and notebook 04.

Each takes a sequence (T, B, in) to the last step's output (B, H), as a classifier wants it. The
input requires no gradient.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.bench.measure import (
    growth_of_peak,
    in_fresh_process,
    interleaved_times,
    saved_bytes,
)
from irevrnn.allocator import use_caching_allocator
from irevrnn.rnn import IRevRNN

#: Range of the recurrent weights: memories of some hundred steps and more.
RECURRENT_WEIGHTS = (0.99, 1.0)
#: A measurement of the time repeats short steps until so many seconds are over.
SECONDS = 0.5


class StackShape(NamedTuple):
    """T, B, features of the input, H, layers."""

    steps: int
    batch: int
    features: int
    hidden: int
    layers: int


@dataclass(frozen=True)
class Stack:
    """A network whose last output is wanted.

    Attributes:
        forward: (T, B, in) to (B, H).
        parameters: its weights.
    """

    forward: Callable[[Tensor], Tensor]
    parameters: tuple[nn.Parameter, ...]

    def step(self, x: Tensor) -> None:
        """Forward and backward: fresh gradients in ``grad`` of the parameters."""
        for parameter in self.parameters:
            parameter.grad = None
        self.forward(x).sum().backward()


class Method(NamedTuple):
    """A network that can be built for a shape, and its name in tables and figures."""

    label: str
    build: Callable[[StackShape], Stack]


def _ours(memory: str, shape: StackShape) -> Stack:
    model = IRevRNN(
        shape.features, shape.hidden, shape.layers, activation="leaky_relu", norm="layer",
        batch_first=False, memory=memory,
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.uniform_(*RECURRENT_WEIGHTS)
    return Stack(lambda x: model(x, return_sequence=False)[0], tuple(model.parameters()))


def _autograd(shape: StackShape) -> Stack:
    stack = _ours("store", shape)

    def forward(x: Tensor) -> Tensor:
        with _plain_pytorch():
            return stack.forward(x)

    return Stack(forward, stack.parameters)


@contextmanager
def _plain_pytorch() -> Iterator[None]:
    before = os.environ.get("IREVRNN_BACKEND")
    os.environ["IREVRNN_BACKEND"] = "python"
    try:
        yield
    finally:
        if before is None:
            del os.environ["IREVRNN_BACKEND"]
        else:
            os.environ["IREVRNN_BACKEND"] = before


def _peer(kind: type[nn.LSTM] | type[nn.GRU], shape: StackShape) -> Stack:
    module = kind(shape.features, shape.hidden, shape.layers)
    return Stack(lambda x: module(x)[0][-1], tuple(module.parameters()))


#: Everything that is compared, by its name in result files; ours come first.
METHODS: dict[str, Method] = {
    "recompute": Method("recompute", partial(_ours, "recompute")),
    "store": Method("store", partial(_ours, "store")),
    "checkpoint": Method("checkpoint", partial(_ours, "checkpoint")),
    "reversible": Method("reversible", partial(_ours, "reversible")),
    "store_fixed": Method("store, fixed point", partial(_ours, "store_fixed")),
    "lstm": Method("nn.LSTM", partial(_peer, nn.LSTM)),
    "gru": Method("nn.GRU", partial(_peer, nn.GRU)),
    "autograd": Method("plain autograd", _autograd),
}


def _flush_denormals() -> None:
    """Let this process take numbers below 1e-38 for 0, where the processor can.

    The gradients of what is forgotten come to that, and some processors take a hundred times as
    long for such a number: on an Intel Xeon the backward pass of two layers of ``nn.LSTM`` from
    the last of 784 steps took 2.2 s, and 0.3 s so. No peer should be weakened by that.
    """
    torch.set_flush_denormal(True)


def make_input(shape: StackShape) -> Tensor:
    """Draw a float32 input (T, B, in)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape.steps, shape.batch, shape.features, generator=generator)


# --- one length -----------------------------------------------------------------------------------


def measure_length(name: str, shape: StackShape) -> dict[str, Any]:
    """Measure a method in a process of its own.

    Returns:
        ``method``, the shape, ``peak_bytes`` that a step adds to the resident memory,
        ``saved_bytes`` between forward and backward, and ``seconds`` of the fastest repetition.
    """
    return {"method": name, **shape._asdict(), **in_fresh_process(_measure_length, name, shape)}


def _measure_length(name: str, shape: StackShape) -> dict[str, Any]:
    torch.manual_seed(0)
    _flush_denormals()
    use_caching_allocator()
    stack, x = METHODS[name].build(shape), make_input(shape)
    stack.step(x[:64])  # loads the kernels
    peak = growth_of_peak(lambda: stack.step(x))
    return {"peak_bytes": peak, "saved_bytes": _saved(stack, x), "seconds": _time(stack, x)}


def _time(stack: Stack, x: Tensor) -> float:
    times: list[float] = []
    while sum(times) < SECONDS:
        start = time.perf_counter()
        stack.step(x)
        times.append(time.perf_counter() - start)
    return min(times)


# --- times side by side ---------------------------------------------------------------------------


def compare(
    shape: StackShape,
    names: Sequence[str] = tuple(METHODS),
    repetitions: int = 9,
    *,
    keep_memory: bool = True,
) -> dict[str, Any]:
    """Time the methods in one fresh process, interleaved.

    Args:
        shape: (T, B, in, H, L).
        names: keys of :data:`METHODS`; ``recompute`` is always measured.
        repetitions: interleaved rounds.
        keep_memory: whether the process keeps freed memory, as training does, or PyTorch is as it
            comes.

    Returns:
        The shape, ``methods`` with times in milliseconds and saved bytes, and ``ratios`` of the
        median times to that of ``recompute``, with quartiles; among them ``lstm_to_reversible``.
    """
    return in_fresh_process(_compare, shape, tuple(names), repetitions, keep_memory)


def _compare(
    shape: StackShape, names: Sequence[str], repetitions: int, keep_memory: bool
) -> dict[str, Any]:
    torch.manual_seed(0)
    _flush_denormals()
    if keep_memory:
        use_caching_allocator()
    x = make_input(shape)
    stacks = {name: METHODS[name].build(shape) for name in dict.fromkeys(("recompute", *names))}
    times = interleaved_times(
        {name: partial(stack.step, x) for name, stack in stacks.items()}, repetitions
    )
    ratios = {name: timing.ratio_to(times["recompute"]) for name, timing in times.items()}
    if {"lstm", "reversible"} <= times.keys():
        ratios["lstm_to_reversible"] = times["lstm"].ratio_to(times["reversible"])
    return {
        **shape._asdict(),
        "methods": {
            name: {**times[name].in_milliseconds(), "saved_bytes": _saved(stack, x)}
            for name, stack in stacks.items()
        },
        "ratios": {name: ratio for name, (_, ratio, _) in ratios.items()},
        "ratio_quartiles": {name: [low, high] for name, (low, _, high) in ratios.items()},
    }


def _saved(stack: Stack, x: Tensor) -> int:
    return saved_bytes(
        lambda: stack.forward(x), exclude=(x, *stack.parameters), exclude_output=True
    )
