"""Compute the bytes that each strategy saves, and its peak, from sizes and weights.

The saved bytes are those that a graph keeps between the forward and the backward pass, beyond the
input, the parameters and what is returned. They are exact in full precision but for
``reversible``, where the bits are an average of what the weights forget, and g is taken to forget
everywhere. The peak is that of all tensors that are alive at once. It is an estimate without the
gradients of input and output, which every strategy has, and without the few MB that oneDNN and MKL
take for themselves.

What a graph saves, and what is alive beside it, is found by running the stack forward and backward
on fake tensors, which have no memory (:mod:`irevrnn.strategies.trace`): so it is right for blocks
of any kind.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from irevrnn.activations import get_activation
from irevrnn.backend import choose_backend
from irevrnn.input_checks import autocasts
from irevrnn.strategies.bit_stacks import GROUP
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.fixed_point import stored_bits
from irevrnn.strategies.reversible import HASHES
from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.trace import Trace, trace
from irevrnn.strategies.workload import Workload

#: In the vectorised kernel the lanes of a layer share at most this number of bit stacks.
STACKS = 16
#: The share of a chunk's memory that allocators keep beside it (``csrc/caching_allocator.h``).
KEPT = 1 / 8
#: Traces that a stack keeps, two for each batch size and form of the input.
MOST_COSTS = 64
#: Bits of the two states of a unit.
STATE_BITS = 2 * 32


class Plan(NamedTuple):
    """A strategy for a workload, and its cost.

    Attributes:
        memory: the strategy.
        chunk: steps in a chunk; 0 for the strategies that work layer by layer.
        checkpoints: that ``checkpoint`` keeps at once, if they are fewer than chunks; else 0.
        saved: bytes between forward and backward.
        peak: bytes at the largest moment of the two.
    """

    memory: str
    chunk: int
    checkpoints: int
    saved: int
    peak: int


def plan(
    stack: Stack,
    load: Workload,
    memory: str,
    chunk: int | None = None,
    checkpoints: int = 0,
) -> Plan:
    """Return the cost of a strategy.

    Args:
        stack: the modules that run.
        load: the sizes.
        memory: a strategy that can serve
            (:func:`irevrnn.strategies.rules.unsupported_reason`), other than
            ``store_fixed``.
        chunk: steps in a chunk; the default of the strategy if not given.
        checkpoints: that ``checkpoint`` keeps at once; 0 for all.
    """
    resets = _mask_bytes(stack, load)
    if memory in OF_A_LAYER:
        graph = _graph(stack, load, memory)
        return Plan(memory, 0, 0, graph.saved + resets, graph.peak() + resets)
    hidden = max(block.hidden_size for block in stack.blocks)
    chunk = min(chunk or chunk_length(memory, load.steps, load.batch, hidden), load.steps)
    graph = _graph_of_chunk(stack, load, chunk)
    chunks = math.ceil(load.steps / chunk)
    bytes_of = _checkpoint if memory == "checkpoint" else _reversible
    own = bytes_of(stack, load, checkpoints or chunks)
    saved = own + graph.masks + resets + _generator_bytes(stack, chunks)
    # A chunk has gradients of parameters of its own, which are added up, in float32 at least.
    peak = saved + math.ceil(graph.peak() * (1 + KEPT)) + _parameter_bytes(stack)
    if checkpoints:  # those that the backward pass is running from and to, beside the saved ones
        peak += 2 * own // (checkpoints + 1)
    return Plan(memory, chunk, checkpoints, saved, peak)


def _mask_bytes(stack: Stack, load: Workload) -> int:
    """Return the bytes of copies of the mask of resets: in the order of time, and turned round."""
    if load.resets is None:
        return 0
    return (load.copied + bool(stack.reverse)) * load.steps * load.batch


def _generator_bytes(stack: Stack, chunks: int) -> int:
    """Return the bytes of the generator's states, one for each chunk, if ``nn.Dropout`` draws."""
    modules = (each for module in stack.modules for each in module.modules())
    dropouts = (each for each in modules if isinstance(each, _DropoutNd))
    draws = any(each.training and _probability(each) for each in dropouts)
    return chunks * torch.get_rng_state().nbytes if draws else 0


def _parameter_bytes(stack: Stack) -> int:
    parameters = {p for module in stack.modules for p in module.parameters()}
    return sum(p.numel() * max(4, p.element_size()) for p in parameters)


def _graph(stack: Stack, load: Workload, memory: str) -> Trace:
    """Return the cost of the graph of all steps.

    It grows by the same number of bytes from segment to segment: the first two tell all others.
    """
    load = replace(load, rows=None, resets=None)  # padded, and without a mask, it is the same
    first = (load.steps - 1) % SEGMENT + 1
    if first == 1 < load.steps:  # a single step is contiguous in every order of dimensions
        first += SEGMENT
    found = _traced(stack, replace(load, steps=first), memory)
    more = (load.steps - first) // SEGMENT
    if more:
        longer = _traced(stack, replace(load, steps=first + SEGMENT), memory)
        found = found.longer(longer, more)
    return found


def _traced(stack: Stack, load: Workload, memory: str) -> Trace:
    """Trace the stack, unless that was done before."""
    modules = [each for module in (*stack.modules, *stack.reverse) for each in module.modules()]
    weights = [p for each in modules for p in each.parameters(recurse=False)]
    kind = stack.blocks[0].recurrent_weight.device.type
    autocast = autocasts(kind) and torch.get_autocast_dtype(kind)
    state = (
        tuple((type(each), each.training, _probability(each)) for each in modules),
        tuple((p.requires_grad, p.dtype, p.device, p.shape) for p in weights),
        autocast,
    )
    key = (load, memory, state)
    found = stack.costs.get(key)
    if found is None:  # other threads may clear them meanwhile
        if len(stack.costs) >= MOST_COSTS:
            stack.costs.clear()
        found = stack.costs[key] = trace(stack, memory, load)
    return found


def _probability(module: nn.Module) -> float | None:
    """Return the probability of a dropout, which keeps a mask if that is not 0."""
    p = getattr(module, "p", None)  # may be anything else in a user's module
    return p if isinstance(p, int | float) else None


def _graph_of_chunk(stack: Stack, load: Workload, chunk: int) -> Trace:
    """Return the cost of the graph of a chunk that is computed again."""
    steps = math.ceil(chunk / SEGMENT) * SEGMENT  # what was traced for one length serves for all
    return _graph(stack, replace(load, steps=steps, own_states=True), "recompute")


def _checkpoint(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of h and c of every block where chunks begin and end (``eq:checkpoint``)."""
    size = max(4, stack.blocks[0].recurrent_weight.element_size())  # at least in single precision
    return (chunks + 1) * 2 * load.batch * size * sum(block.hidden_size for block in stack.blocks)


def _reversible(stack: Stack, load: Workload, chunks: int) -> int:
    """Return the bytes of final states, hashes and forgotten bits (``eq:decay``)."""
    blocks = sum(_reversible_block(block, load, chunks) for block in stack.blocks)
    return blocks + 2 * 8  # the hash of the outputs, and the number of steps


def _reversible_block(block: Any, load: Workload, chunks: int) -> int:
    negative = get_activation(block.activation).forgotten_bits or 0.0
    forgotten = stored_bits(block.recurrent_weight)
    bits = load.real_steps * (forgotten + negative).sum().item()
    bits += (load.resets or 0) * STATE_BITS * block.hidden_size
    units = load.batch * block.hidden_size
    groups = math.ceil(chunks / GROUP) if bits else 1
    stacks = _bit_stacks(block.recurrent_weight, units)
    # Tails and places, counts of each group, and hashes; h, c and their scales.
    numbers = 2 * stacks + groups * (1 + stacks) + HASHES
    return math.ceil(bits / 8) + 4 * 4 * units + 8 * numbers


def _bit_stacks(weight: Tensor, units: int) -> int:
    """Return the number of bit stacks of a block, each with its 64-bit tail and counts."""
    return STACKS if choose_backend(weight.device.type, weight.dtype) == "vector" else units
