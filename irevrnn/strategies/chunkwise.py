"""Backpropagation through the whole stack, chunk by chunk, from the last chunk to the first.

In the forward pass a chunk of steps goes through all blocks before the next chunk, and nothing of
it is saved but what the strategy needs to restore its initial states. The backward pass takes the
chunks in reverse order: it rebuilds a chunk with its graph, backpropagates through it and drops it.
So neither z nor any block's output exists for more than a chunk of steps at a time.

What a strategy saves, and how it rebuilds a chunk, is in :mod:`irevrnn.strategies.checkpoint` and
:mod:`irevrnn.strategies.reversible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.allocator import allocate, allocate_like
from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.modules.steps import Masks, Steps
from irevrnn.observers import Observers, as_observed, observers
from irevrnn.sequences import Packing
from irevrnn.strategies.buffers import check_versions, versions_of
from irevrnn.strategies.checkpoint import Checkpoint, Slots
from irevrnn.strategies.chunk_graph import ChunkGraph
from irevrnn.strategies.chunks import Part, Parts
from irevrnn.strategies.randomness import Randomness
from irevrnn.strategies.replica import (
    Modes,
    Replica,
    buffers_of,
    modes_of,
    names_of,
    parameters_of,
)
from irevrnn.strategies.reversible import Reversible, StoreFixed
from irevrnn.strategies.rules import (
    check_buffers,
    check_initialised,
    check_known,
    check_no_cached_weights,
    check_reverse_mode,
    first_order_only,
    require,
)
from irevrnn.strategies.stack import Stack, project, run_modules
from irevrnn.strategies.strategy import Strategy


def run_chunkwise(
    stack: Stack,
    memory: str,
    x: Tensor,
    states: list[State],
    packing: Packing | None,
    resets: Tensor | None,
    return_sequence: bool,
    chunk: int,
    checkpoints: int = 0,
) -> tuple[Tensor, list[State]]:
    """Run a stack over a sequence, chunk by chunk.

    Args:
        stack: the modules, of one direction.
        memory: ``checkpoint``, ``reversible`` or ``store_fixed``.
        x: (T, B, in), which need not be contiguous; or (N, in) packed.
        states: h_0 and c_0 of every block, (B, H) each.
        packing: of x, if it is packed.
        resets: (T, B) or (N,), or None.
        return_sequence: whether to return the output of all steps.
        chunk: steps in a chunk.
        checkpoints: that ``checkpoint`` keeps at once; 0 for one at the beginning of every chunk.

    Returns:
        The output, (T, B, out) or (N, out), or (B, out) of the last step; h_n and c_n of every
        block.

    Raises:
        NotImplementedError: a transform of ``torch.func``, or forward-mode differentiation.
        OverflowError: a value left the range of the fixed-point numbers.
        ValueError: batch normalisation in training, or a recurrent weight outside [-1, 1].
        RuntimeError: there are no kernels for fixed point, or none for this dtype.
        ReversalError: (in the backward pass) a state was not reconstructed exactly.
    """
    require(stack.unsupported_reason(memory))
    flat = parameters_of(stack)
    flat_states = [state for pair in states for state in pair]
    check_reverse_mode(memory, x, *flat_states, *flat)
    record = records(x, *flat_states, *flat)
    if record:
        check_no_cached_weights(memory, stack.named)
        check_initialised(memory, flat)
        check_buffers(memory, buffers_of(stack))
    modes = modes_of(stack) if record else {}
    settings = Settings(
        stack, memory, chunk, checkpoints, return_sequence, record, modes,
        frozenset(map(id, flat)), observers(x, *flat_states, *flat),
    )  # fmt: skip
    batch_sizes = None if packing is None else packing.batch_sizes
    output, *finals = _Chunkwise.apply(settings, x, batch_sizes, resets, *flat_states, *flat)
    return output, list(zip(finals[::2], finals[1::2], strict=True))


def records(*tensors: Tensor) -> bool:
    """Return whether autograd records what is computed from these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


@dataclass(frozen=True)
class Settings:
    """How a stack runs: see :func:`run_chunkwise`.

    Attributes:
        record: whether a backward pass may follow.
        modes: of the modules, for this backward pass.
        parameters: ids of the parameters of this pass, whose gradients are returned or not needed.
        observers: of this pass; chunks are computed again under the same ones.
    """

    stack: Stack
    memory: str
    chunk: int
    checkpoints: int
    return_sequence: bool
    record: bool
    modes: Modes
    parameters: frozenset[int]
    observers: Observers
    randomness: Randomness = field(default_factory=Randomness)
    slots: Slots = field(default_factory=Slots)

    def new_strategy(self) -> Strategy:
        """Return the strategy, which has recorded nothing."""
        if self.memory == "checkpoint":
            return Checkpoint(self.checkpoints, self.slots)
        return (Reversible if self.memory == "reversible" else StoreFixed)(self.block_name)

    def block_name(self, number: int) -> str:
        """Return what an error calls a block."""
        return self.stack.name(self.stack.places[number])

    @contextmanager
    def replayed(self, chunk: int) -> Iterator[None]:
        """Run a chunk once more as it ran: by the same operators, with the same random numbers."""
        with as_observed(self.observers), self.randomness.replayed(chunk):
            yield

    def run(
        self, modules: Sequence[nn.Module], x: Tensor, part: Part, recur: Any, masks: Masks
    ) -> Tensor:
        """Take a chunk through all modules."""
        last_only = not self.return_sequence
        steps = Steps(masks, part.begin, part.end, part.batch, part.packing)
        return run_modules(self.stack, modules, x, recur, steps, last_only)


class _Chunkwise(torch.autograd.Function):
    """The stack as one node of the graph: output and final states of x, states and parameters."""

    @staticmethod
    def forward(
        ctx: Any, settings: Settings, x: Tensor, batch_sizes: Tensor | None, resets: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        stack, strategy = settings.stack, settings.new_strategy()
        count = 2 * len(stack.blocks)
        states = list(zip(tensors[:count:2], tensors[1:count:2], strict=True))
        recurrences = [Recurrence.of(block) for block in stack.blocks]
        chunks = Parts(settings.chunk, x, batch_sizes, resets)
        if resets is not None:
            states = _after_resets(states, chunks[0])
        strategy.begin(states, recurrences, settings.record, len(chunks))
        autocast, masks = _autocast_of(x.device.type), Masks()
        with autocast(), as_observed(settings.observers):
            output = _run_forward(settings, strategy, x, chunks, masks)
        if settings.record:
            ctx.settings, ctx.memory, ctx.autocast = settings, settings.memory, autocast
            buffers = buffers_of(stack)
            ctx.num_parameters, ctx.num_buffers = len(tensors) - count, len(buffers)
            ctx.places, ctx.names = list(masks), names_of(stack)
            ctx.set_materialize_grads(False)
            kept = (*tensors[count:], *buffers, *masks.values(), *strategy.saved())
            ctx.save_for_backward(x, batch_sizes, resets, *kept)
        finals = strategy.finals(tensors[0].dtype)
        return (output, *(state for pair in finals for state in pair))

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad_output: Any, *grad_finals: Any) -> Any:
        settings: Settings = ctx.settings
        stack = settings.stack
        x, batch_sizes, resets, *rest = ctx.saved_tensors
        parts, counts = iter(rest), (ctx.num_parameters, ctx.num_buffers, len(ctx.places))
        parameters, buffers, drawn = ([*islice(parts, count)] for count in counts)
        masks = dict(zip(ctx.places, drawn, strict=True))
        needed = ctx.needs_input_grad[len(ctx.needs_input_grad) - ctx.num_parameters :]
        replica = Replica(stack, ctx.names, parameters, buffers, needed, settings.modes)
        modules = replica.modules
        blocks = [modules[place] for place in stack.places]
        strategy = settings.new_strategy()
        chunks = Parts(settings.chunk, x, batch_sizes, resets)
        recurrences = [Recurrence.of(block) for block in blocks]
        strategy.begin_backward([*parts], recurrences, len(chunks))
        grad_x = allocate_like(x) if ctx.needs_input_grad[1] else None
        carried: Sequence[Tensor | None] = grad_finals

        def run(index: int) -> None:
            part = chunks[index]
            strategy.begin_chunk(part)
            with torch.no_grad(), ctx.autocast(), settings.replayed(index):
                _run_chunk(settings, strategy, modules, x, part, masks)

        known = settings.parameters.union(map(id, replica.leaves))
        for chunk in reversed(range(len(chunks))):
            part = chunks[chunk]
            strategy.restore(chunk, run)
            x_part = x[part.rows].detach().contiguous()
            x_part.requires_grad_(grad_x is not None)
            with torch.enable_grad(), ctx.autocast(), settings.replayed(chunk):
                graph = _rebuild(settings, strategy, modules, chunk, x_part, part, masks)
            strategy.note_output(chunk, graph.top.detach())
            check_known(settings.memory, graph.foreign(known | {id(x_part)}))
            of_top = _part_of_output(settings, grad_output, part)
            carried, gradients, of_x = graph.backpropagate(carried, of_top, replica.leaves, x_part)
            replica.add(gradients)
            if grad_x is not None:
                grad_x[part.rows] = 0 if of_x is None else of_x
        strategy.finish()
        return None, grad_x, None, None, *carried, *replica.gradients()


def _after_resets(states: list[State], first: Part) -> list[State]:
    """Return states that are 0 where the first step resets them: nobody reads what they were."""
    assert first.resets is not None
    sizes = first.batch_sizes
    reset = first.resets[0] if sizes is None else first.resets[: int(sizes[0])]
    reset = nn.functional.pad(reset, (0, first.batch - len(reset))).unsqueeze(1)
    return [(h.masked_fill(reset, 0), c.masked_fill(reset, 0)) for h, c in states]


def _run_forward(
    settings: Settings, strategy: Strategy, x: Tensor, chunks: Parts, masks: Masks
) -> Tensor:
    """Run all chunks and return the output, of all steps or of the last."""
    stack = settings.stack
    output: Tensor | None = None
    versions = versions_of(stack, x) if settings.record else {}
    for chunk, part in enumerate(chunks):
        strategy.begin_chunk(part)
        with settings.randomness.recorded(settings.record, x):
            new = _run_chunk(settings, strategy, stack.modules, x, part, masks)
        strategy.note_output(chunk, new)
        if output is None:
            length = x.shape[0] if settings.return_sequence else part.batch
            output = allocate(new, [length, *new.shape[1:]])
        output[part.rows if settings.return_sequence else part.ended] = new
    if settings.record:
        check_versions(stack, x, settings.memory, versions)
    assert output is not None  # there is at least one step
    return output


def _run_chunk(
    settings: Settings,
    strategy: Strategy,
    modules: Sequence[nn.Module],
    x: Tensor,
    part: Part,
    masks: Masks,
) -> Tensor:
    """Take a chunk of x through all modules, without a graph."""

    def recur(number: int, block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return strategy.forward(number, project(settings.stack, number, block, x))

    return settings.run(modules, x[part.rows].contiguous(), part, recur, masks)


def _rebuild(
    settings: Settings,
    strategy: Strategy,
    modules: Sequence[nn.Module],
    chunk: int,
    x: Tensor,
    part: Part,
    masks: Masks,
) -> ChunkGraph:
    """Run a chunk once more, with gradients, from states that the strategy restores."""
    leaves = strategy.leaves()
    finals: list[State] = []

    def recur(number: int, block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        z = project(settings.stack, number, block, x)
        out, h_n, c_n = strategy.rebuild(chunk, part, number, z, leaves[number])
        finals.append((h_n, c_n))
        return out, h_n

    # Tools that watch modules, such as FlopCounterMode, do not take a leaf within autograd.grad.
    top = settings.run(modules, x.view_as(x), part, recur, masks)
    before, after = ([state for pair in states for state in pair] for states in (leaves, finals))
    return ChunkGraph(before, after, top)


def _part_of_output(settings: Settings, gradient: Tensor | None, part: Part) -> Tensor | None:
    """Return the part of the output's gradient that belongs to a chunk."""
    if gradient is None:
        return None
    if settings.return_sequence:
        return gradient[part.rows]
    return gradient[part.ended] if part.ends_some else None


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that restores the present state of autocast.

    Its cache of cast weights stays off: it would hand casts without gradients, made here, to other
    users of the weights, and those of one chunk's graph to the next.
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype, enabled, cache_enabled=False)
