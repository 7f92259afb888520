"""Compute the bytes that each strategy saves, and its peak, from sizes and weights.

The saved bytes are those that a graph keeps between the forward and the backward pass, beyond the
input, the parameters and what is returned. They are exact in full precision but for
``reversible``, where they are an upper bound: the bits depend on the weights, which are looked at,
and on where g forgets, which is taken as everywhere. The peak adds what the largest moment of the
backward pass needs. It is an estimate without the gradients of input, output and parameters, which
every strategy has, and without the few MB that oneDNN takes for itself.

What a graph saves is found by running the stack on fake tensors, which have no memory: so it is
right for blocks of any kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from irevrnn.activations import get_activation
from irevrnn.backend import choose_backend
from irevrnn.modules.steps import Masks
from irevrnn.sequences import SequenceBatch
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.fixed_point import round_weight
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.reversible import HASHES
from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT
from irevrnn.strategies.stack import Stack, with_parameters

#: In the vectorised kernel the lanes of a layer share at most this number of bit stacks.
STACKS = 16
#: Sequences of the widest size that the backward pass has at once.
GRADIENTS = 3
#: Bits of the two states of a unit.
STATE_BITS = 2 * 64


@dataclass(frozen=True)
class Workload:
    """The sizes of a forward and backward pass.

    Attributes:
        steps, batch, features: T, B and the features of the input.
        copied: whether the first block works on a copy of the input (another order of dimensions).
        return_sequence: whether the output of all steps is returned.
        own_states: whether the initial states are zeros that the stack makes.
        packed: whether sequences have lengths of their own, of at most ``steps``.
        resets: how often a sequence's states are reset.
    """

    steps: int
    batch: int
    features: int
    copied: bool = False
    return_sequence: bool = True
    own_states: bool = True
    packed: bool = False
    resets: int = 0

    @classmethod
    def of(
        cls, batch: SequenceBatch, own_states: bool, return_sequence: bool, resets: int = 0
    ) -> Workload:
        """Return the workload of an input."""
        return cls(
            steps=batch.steps,
            batch=batch.size,
            features=batch.x.shape[-1],
            copied=not batch.x.is_contiguous(),
            return_sequence=return_sequence,
            own_states=own_states,
            packed=batch.packing is not None,
            resets=resets,
        )


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


class Trace(NamedTuple):
    """The bytes of a graph: all that is saved, the widest sequence, and the masks of dropout."""

    saved: int
    widest: int
    masks: int


def plan(stack: Stack, load: Workload, memory: str, chunk: int | None = None) -> Plan:
    """Return the cost of a strategy.

    Args:
        stack: the modules that run.
        load: the sizes.
        memory: a strategy that can serve (:func:`irevrnn.strategies.rules.obstacle`).
        chunk: steps in a chunk; the default of the strategy if not given.
    """
    if memory in OF_A_LAYER:
        graph = _graph(stack, load, memory)
        return Plan(memory, 0, graph.saved, graph.saved + GRADIENTS * graph.widest)
    hidden = max(block.hidden_size for block in stack.blocks)
    chunk = min(chunk or chunk_length(memory, load.steps, load.batch, hidden), load.steps)
    graph = _graph_of_chunk(stack, load, chunk)
    saved = graph.masks + _SAVED[memory](stack, load, math.ceil(load.steps / chunk))
    peak = saved + graph.saved + GRADIENTS * graph.widest
    if memory != "checkpoint":
        peak += chunk * _values_of_f(stack, load)
    return Plan(memory, chunk, saved, peak)


def _graph(stack: Stack, load: Workload, memory: str) -> Trace:
    """Return the cost of the graph of the whole stack.

    Both grow by the same number of bytes from segment to segment: the first two tell all others.
    """
    first = (load.steps - 1) % SEGMENT + 1
    if first == 1 < load.steps:  # a single step is contiguous in every order of dimensions
        first += SEGMENT
    saved, widest, masks = _traced(stack, replace(load, steps=first), memory)
    more = (load.steps - first) // SEGMENT
    if more:
        then = _traced(stack, replace(load, steps=first + SEGMENT), memory)
        saved += more * (then.saved - saved)
    return Trace(saved, widest * load.steps // first, masks)


def _traced(stack: Stack, load: Workload, memory: str) -> Trace:
    """Run the stack on fake tensors, unless that was done before."""
    training = any(module.training for module in stack.modules)
    key = (load, memory, training)
    if key not in stack.costs:
        stack.costs[key] = _trace(stack, load, memory)
    return stack.costs[key]


def _trace(stack: Stack, load: Workload, memory: str) -> Trace:
    like = stack.blocks[0].recurrent_weight
    saved: dict[int, Tensor] = {}
    masks = Masks()

    def keep(x: Tensor) -> Tensor:
        saved[x.untyped_storage()._cdata] = x
        return x

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.enable_grad():
        fake, parameters = _with_fakes(stack, mode)
        shape = (load.batch, load.steps) if load.copied else (load.steps, load.batch)
        x = torch.empty(*shape, load.features, dtype=like.dtype, device=like.device)
        x = x.transpose(0, 1) if load.copied else x
        sizes = [block.hidden_size for block in stack.all_blocks]
        zeros = [like.new_zeros(load.batch, size) for size in sizes]
        states = [(each, each) for each in zeros]
        with hooks:
            output, finals = run_layerwise(
                fake, memory, x, states, None, None, load.return_sequence, masks
            )
    known = [x, output, *parameters, *(state for pair in finals for state in pair)]
    if not load.own_states:
        known += zeros
    for x in known:
        saved.pop(x.untyped_storage()._cdata, None)
    total = sum(x.untyped_storage().nbytes() for x in saved.values())
    sequences = [x.nbytes for x in saved.values() if x.shape[:1] == (load.steps,)]
    return Trace(total, max([*sequences, 0]), sum(mask.nbytes for mask in masks.tied.values()))


def _with_fakes(stack: Stack, mode: FakeTensorMode) -> tuple[Stack, list[Tensor]]:
    """Return copies of the modules whose parameters and buffers are fake, and these tensors."""
    fakes: dict[Tensor, Tensor] = {}

    def copied(module: nn.Module) -> nn.Module:
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
        for _, x in named:
            fakes.setdefault(x, mode.from_tensor(x))
        return with_parameters(module, {name: fakes[x] for name, x in named})

    modules = [copied(module) for module in stack.modules]
    reverse = [copied(module) for module in stack.reverse]
    return replace(stack, modules=modules, reverse=reverse), list(fakes.values())


def _checkpoint(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of h and c of every block where chunks begin (``eq:checkpoint``)."""
    size = stack.blocks[0].recurrent_weight.element_size()
    return chunks * 2 * load.batch * size * sum(block.hidden_size for block in stack.blocks)


def _reversible(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of final states, hashes and forgotten bits (``eq:decay``)."""
    bits, states = 0.0, 0
    for block in stack.blocks:
        negative = get_activation(block.activation).forgotten_bits or 0.0
        forgotten = -round_weight(block.recurrent_weight.detach()).abs().double().log2()
        bits += load.steps * load.batch * (forgotten + negative).sum().item()
        bits += load.resets * STATE_BITS * block.hidden_size
        units = load.batch * block.hidden_size
        states += 3 * 8 * units + 8 * _bit_stacks(block.recurrent_weight, units) + 8 * HASHES
    return math.ceil(bits / 8) + states


def _bit_stacks(weight: Tensor, units: int) -> int:
    """Return the number of bit stacks of a block, each of which has a 64-bit count."""
    return STACKS if choose_backend(weight.device.type, weight.dtype) == "vector" else units


def _store_fixed(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of outputs, values of f and the states of every pass."""
    total = 0
    for block in stack.blocks:
        units, size = load.batch * block.hidden_size, block.recurrent_weight.element_size()
        total += load.steps * (1 + 2 * len(block.coupling_a)) * units * size
        total += 3 * (chunks + 1) * 8 * units
    return total


_SAVED: dict[str, Callable[[Stack, Workload, int], int]] = {
    "checkpoint": _checkpoint,
    "reversible": _reversible,
    "store_fixed": _store_fixed,
}


def _graph_of_chunk(stack: Stack, load: Workload, chunk: int) -> Trace:
    """Return the cost of the graph of a chunk that is computed again."""
    inner = replace(load, steps=chunk, copied=True, return_sequence=False, own_states=True)
    return _graph(stack, replace(inner, resets=0), "recompute")


def _values_of_f(stack: Stack, load: Workload) -> int:
    """Return the bytes of f(p) and f(c) of every coupling in a step."""
    return sum(
        2 * block.coupling_a.numel() * load.batch * block.coupling_a.element_size()
        for block in stack.blocks
    )
