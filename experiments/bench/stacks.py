"""A stack of layers under each strategy, and peers of its size.

Each takes a sequence (T, B, in) to the last step's output (B, H), as a classifier wants it. The
input requires no gradient.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from experiments.bench.recurrences import Method, Timed, compare
from irevrnn.modules.rnn import IRevRNN

#: Range of the recurrent weights: memories of some hundred steps and more.
RECURRENT_WEIGHTS = (0.99, 1.0)
STRATEGIES = ("recompute", "store", "checkpoint", "reversible")


class StackShape(NamedTuple):
    """T, B, features of the input, H, layers."""

    steps: int
    batch: int
    features: int
    hidden: int
    layers: int


def _ours(memory: str, shape: StackShape) -> Timed:
    model: Any = IRevRNN(
        shape.features, shape.hidden, shape.layers, activation="leaky_relu", norm="layer",
        batch_first=False, memory=memory,
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.uniform_(*RECURRENT_WEIGHTS)
    return Timed(lambda x: (model(x, return_sequence=False)[0],), tuple(model.parameters()))


def _autograd(shape: StackShape) -> Timed:
    kernels = _ours("store", shape)

    def forward(x: Tensor) -> tuple[Tensor, ...]:
        with patch.dict(os.environ, IREVRNN_BACKEND="python"):
            return kernels.forward(x)

    return Timed(forward, kernels.weights)


def _peer(kind: type[nn.LSTM] | type[nn.GRU], shape: StackShape) -> Timed:
    module = kind(shape.features, shape.hidden, shape.layers)
    return Timed(lambda x: (module(x)[0][-1],), tuple(module.parameters()))


#: Everything that is compared, by its name in result files; ours come first.
NETWORKS: dict[str, Method] = {
    **{name: Method(name, partial(_ours, name)) for name in STRATEGIES},
    "store_fixed": Method("store, fixed point", partial(_ours, "store_fixed")),
    "lstm": Method("nn.LSTM", partial(_peer, nn.LSTM)),
    "gru": Method("nn.GRU", partial(_peer, nn.GRU)),
    "autograd": Method("cell, autograd", _autograd),
}


def make_input(shape: StackShape) -> tuple[Tensor, Tensor]:
    """Draw a float32 input (T, B, in), and make the gradient of a sum over the last output."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.steps, shape.batch, shape.features, generator=generator)
    return x, torch.ones(shape.batch, shape.hidden)


def measure_stacks(shape: StackShape, names: Sequence[str], repetitions: int) -> dict[str, Any]:
    """Compare a training step of networks in a new process: ratios to ``recompute``.

    ``names`` have ``recompute``, ``reversible`` and ``lstm`` among them.
    """
    torch.manual_seed(0)
    pairs = {name: (name, "recompute") for name in names}
    pairs["lstm_to_reversible"] = ("lstm", "reversible")
    networks = {name: NETWORKS[name].build(shape) for name in names}
    return {**shape._asdict(), **compare(networks, *make_input(shape), repetitions, pairs)}
