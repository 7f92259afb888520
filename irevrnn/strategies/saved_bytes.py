"""Compute the bytes that each strategy saves, and its peak, from sizes and weights.

The saved bytes are those that a graph keeps between the forward and the backward pass, beyond the
input, the parameters and what is returned. They are exact in full precision but for
``reversible``, where they are an upper bound: the bits depend on the weights, which are looked at,
and on where g forgets, which is taken as everywhere. The peak adds what the largest moment of the
backward pass needs. It is an estimate without the gradients of input, output and parameters, which
every strategy has, and without the few MB that oneDNN takes for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from irevrnn.activations import get_activation
from irevrnn.backend import choose_backend
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.fixed_point import round_weight
from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT
from irevrnn.strategies.stack import Stack

#: In the vectorised kernel the lanes of a layer share at most this number of bit stacks.
STACKS = 16
#: Sequences of a layer's size that the backward pass has at once: gradients of output, z and input.
GRADIENTS = 3


@dataclass(frozen=True)
class Workload:
    """The sizes of a forward and backward pass.

    Attributes:
        steps, batch: T and B.
        copied: whether the first layer works on a copy of the input (another order of dimensions).
        return_sequence: whether the output of all steps is returned.
        own_states: whether the initial states are zeros that the layer makes.
        packed: whether sequences have lengths of their own, of at most ``steps``.
    """

    steps: int
    batch: int
    copied: bool = False
    return_sequence: bool = True
    own_states: bool = True
    packed: bool = False


class Plan(NamedTuple):
    """A strategy for a workload, and its cost.

    Attributes:
        memory: the strategy.
        chunk: steps in a chunk; 0 for the strategies that work layer by layer.
        saved: bytes between forward and backward.
        peak: bytes at the largest moment of the two.
    """

    memory: str
    chunk: int
    saved: int
    peak: int


def plan(stack: Stack, load: Workload, memory: str, chunk: int | None = None) -> Plan:
    """Return the cost of a strategy.

    Args:
        stack: the layers that run.
        load: the sizes.
        memory: a strategy that can serve (:func:`irevrnn.strategies.rules.obstacle`).
        chunk: steps in a chunk; the default of the strategy if not given.
    """
    if memory in OF_A_LAYER:
        saved = _graph(stack, load, load.steps, memory)
        return Plan(memory, 0, saved, saved + GRADIENTS * _row(stack, load) * load.steps)
    hidden = stack.layers[0].spec.hidden_size
    chunk = min(chunk or chunk_length(memory, load.steps, load.batch, hidden), load.steps)
    saved = _SAVED[memory](stack, load, math.ceil(load.steps / chunk)) + _masks(stack, load)
    return Plan(memory, chunk, saved, saved + _rebuilt_chunk(stack, load, memory, chunk))


def _size(stack: Stack) -> int:
    return stack.layers[0].recurrent_weight.element_size()


def _row(stack: Stack, load: Workload) -> int:
    """Return the bytes of one step of a layer's output."""
    return load.batch * stack.layers[0].spec.hidden_size * _size(stack)


def _graph(stack: Stack, load: Workload, steps: int, memory: str) -> int:
    """Return the bytes that the graph of some steps of the whole stack saves (``eq:saved``)."""
    row, size = _row(stack, load), _size(stack)
    directions, depth = stack.directions, len(stack.layers)
    total = 0
    if load.copied:
        total += steps * load.batch * stack.layers[0].spec.input_size * size
    if load.own_states:
        total += depth * directions * row
    for layer in stack.all_layers:
        total += steps * row  # the output
        if memory == "store":
            total += 2 * layer.spec.num_couplings * steps * row
        else:
            total += (math.ceil(steps / SEGMENT) - 1) * row
        total += _norm(layer.norm, load, steps, row, size)
    # What the projections read, where it is not the output that the recurrence below saves.
    made = sum(stack.drops or stack.adds(below) or directions == 2 for below in range(depth - 1))
    total += made * directions * steps * row
    top_is_returned = not stack.adds(depth - 1) and directions == 1
    if load.return_sequence and top_is_returned:
        total -= steps * row  # the last layer's output is the caller's
    return total + _masks(stack, load)


def _norm(norm: nn.Module, load: Workload, steps: int, row: int, size: int) -> int:
    """Return the bytes that a normalisation saves: its input, and what it divides by."""
    if isinstance(norm, nn.LayerNorm):
        return steps * row + 2 * steps * load.batch * size
    if isinstance(norm, nn.BatchNorm1d):
        return steps * row + (2 * norm.num_features * size if norm.training else 0)
    return 0


def _masks(stack: Stack, load: Workload) -> int:
    return (len(stack.layers) - 1) * stack.directions * _row(stack, load) if stack.drops else 0


def _checkpoint(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of h and c of every layer where chunks begin (``eq:checkpoint``)."""
    return chunks * 2 * len(stack.layers) * _row(stack, load)


def _reversible(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of final states, hashes and forgotten bits (``eq:decay``)."""
    units = load.batch * stack.layers[0].spec.hidden_size
    negative = get_activation(stack.activation).forgotten_bits or 0.0
    bits = 0.0
    for layer in stack.layers:
        forgotten = -round_weight(layer.recurrent_weight.detach()).abs().double().log2()
        bits += load.steps * load.batch * (forgotten + negative).sum().item()
    states = len(stack.layers) * (3 * 8 * units + 8 * _bit_stacks(stack, units) + 8 * chunks)
    return math.ceil(bits / 8) + states


def _bit_stacks(stack: Stack, units: int) -> int:
    """Return the number of bit stacks of a layer, each of which has a 64-bit count."""
    weight = stack.layers[0].recurrent_weight
    return STACKS if choose_backend(weight.device.type, weight.dtype) == "vector" else units


def _store_fixed(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of outputs, values of f and the states of every pass."""
    spec, row = stack.layers[0].spec, _row(stack, load)
    rows = load.steps * (1 + 2 * spec.num_couplings)
    return len(stack.layers) * (rows * row + 3 * (chunks + 1) * 8 * load.batch * spec.hidden_size)


_SAVED: dict[str, Callable[[Stack, Workload, int], int]] = {
    "checkpoint": _checkpoint,
    "reversible": _reversible,
    "store_fixed": _store_fixed,
}


def _rebuilt_chunk(stack: Stack, load: Workload, memory: str, chunk: int) -> int:
    """Return the bytes of a chunk with its graph, and of the gradients that pass through it."""
    inner = Workload(chunk, load.batch, copied=True, return_sequence=False)
    row = _row(stack, load)
    total = _graph(stack, inner, chunk, "recompute") + GRADIENTS * chunk * row
    if memory != "checkpoint":  # f(p) and f(c) of every coupling
        total += len(stack.layers) * chunk * 2 * stack.layers[0].spec.num_couplings * row
    return total
