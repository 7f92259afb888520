"""Backpropagation through the whole stack, chunk by chunk, from the last chunk to the first.

In the forward pass a chunk of steps goes through all layers before the next chunk, and nothing of
it is saved but what the strategy needs to restore its initial states. The backward pass takes the
chunks in reverse order: it rebuilds a chunk with its graph, backpropagates through it and drops it.
So neither z nor any layer's output exists for more than a chunk of steps at a time.

What a strategy saves, and how it rebuilds a chunk, is in :mod:`irevrnn.strategies.checkpoint` and
:mod:`irevrnn.strategies.reversible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from irevrnn.allocator import allocate, allocate_like
from irevrnn.sequences import Packing
from irevrnn.strategies.checkpoint import Checkpoint
from irevrnn.strategies.chunks import Part, parts
from irevrnn.strategies.reversible import Reversible, StoreFixed
from irevrnn.strategies.rules import (
    check_recurrence,
    check_reverse_mode,
    first_order_only,
    obstacle,
    require,
)
from irevrnn.strategies.stack import Stack, add_input, drop, with_parameters

Parameters = dict[str, Tensor]
States = tuple[Tensor, Tensor]


class Strategy(Protocol):
    """A strategy: it saves something of the forward pass and rebuilds a chunk from that."""

    def begin(self, h_0: Tensor, c_0: Tensor, parameters: list[Parameters], record: bool) -> None:
        """Begin the forward pass; without ``record`` no backward pass will follow."""

    def begin_chunk(self, offset: int, batch_sizes: Tensor | None) -> None:
        """Begin a chunk whose first step is ``offset``, packed if ``batch_sizes`` are given."""

    def forward(self, index: int, z: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        """Run the recurrence of layer ``index`` over the chunk; return ``out`` and ``h_n``."""

    def finals(self, dtype: torch.dtype) -> States:
        """Return ``h_n`` and ``c_n`` of all layers, (L, B, H)."""

    def saved(self) -> list[Tensor]:
        """Return all that is saved for the backward pass."""

    def begin_backward(self, saved: Sequence[Tensor], parameters: list[Parameters]) -> None:
        """Begin the backward pass from what :meth:`saved` returned."""

    def leaves(self, chunk: int) -> list[States]:
        """Return (h, c) of every layer where the chunk begins, as leaves of its graph."""

    def rebuild(
        self, chunk: int, index: int, z: Tensor, state: States, p: Parameters,
        batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return ``out``, ``h_n`` and ``c_n`` of layer ``index`` over the chunk, with gradients."""

    def finish(self) -> None:
        """End the backward pass; raise an error if a state was not reconstructed exactly."""


STRATEGIES: dict[str, Callable[[str, str], Strategy]] = {
    "checkpoint": Checkpoint,
    "reversible": Reversible,
    "store_fixed": StoreFixed,
}


def run_chunkwise(
    stack: Stack,
    memory: str,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
    return_sequence: bool,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack over a sequence, chunk by chunk.

    Args:
        stack: the layers, of one direction.
        memory: ``checkpoint``, ``reversible`` or ``store_fixed``.
        x: (T, B, in), which need not be contiguous; or (N, in) packed, not in fixed point.
        h_0, c_0: (L, B, H).
        masks: dropout masks between layers, (L - 1, B, H), or None.
        packing: of x, if it is packed.
        return_sequence: whether to return the output of all steps.
        chunk: steps in a chunk.

    Returns:
        The output, (T, B, H) or (N, H), or (B, H) of the last step; ``h_n`` and ``c_n``, (L, B, H).

    Raises:
        NotImplementedError: a transform of ``torch.func``, or forward-mode differentiation.
        OverflowError: a value left the range of the fixed-point numbers.
        ValueError: batch normalisation in training, or a recurrent weight outside [-1, 1].
        ReversalError: (in the backward pass) a state was not reconstructed exactly.
    """
    require(
        obstacle(memory, activation=stack.activation, device=x.device.type, layers=stack.layers)
    )
    check_recurrence(memory, stack.layers)
    flat = [p for layer in stack.layers for _, p in _named_parameters(layer)]
    check_reverse_mode(memory, x, h_0, c_0, *flat)
    record = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h_0, c_0, *flat))
    settings = Settings(stack, memory, chunk, return_sequence, record)
    batch_sizes = None if packing is None else packing.batch_sizes
    return _Chunkwise.apply(settings, x, h_0, c_0, masks, batch_sizes, *flat)


@dataclass(frozen=True)
class Settings:
    """How a stack runs: see :func:`run_chunkwise`; ``record`` says if a backward pass follows."""

    stack: Stack
    memory: str
    chunk: int
    return_sequence: bool
    record: bool

    def new_strategy(self) -> Strategy:
        """Return the strategy, which has recorded nothing."""
        return STRATEGIES[self.memory](self.stack.activation, self.stack.coupling_activation)


class _Chunkwise(torch.autograd.Function):
    """The stack as one node of the graph: output, h_n and c_n from x, states, masks, parameters."""

    @staticmethod
    def forward(
        ctx: Any, settings: Settings, x: Tensor, h_0: Tensor, c_0: Tensor, masks: Tensor | None,
        batch_sizes: Tensor | None, *flat: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        strategy, parameters = settings.new_strategy(), _by_layer(settings.stack, flat)
        strategy.begin(h_0, c_0, parameters, settings.record)
        autocast = _autocast_of(x.device.type)
        with autocast():
            output = _run_forward(settings, strategy, x, masks, batch_sizes, parameters)
        if settings.record:
            ctx.settings, ctx.memory = settings, settings.memory
            ctx.autocast, ctx.num_parameters = autocast, len(flat)
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(x, masks, batch_sizes, *flat, *strategy.saved())
        return (output, *strategy.finals(h_0.dtype))

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad_output: Any, grad_h: Any, grad_c: Any) -> Any:
        settings: Settings = ctx.settings
        stack = settings.stack
        require(obstacle(settings.memory, activation=stack.activation, layers=stack.layers))
        x, masks, batch_sizes, *rest = ctx.saved_tensors
        flat = [p.detach().requires_grad_() for p in rest[: ctx.num_parameters]]
        parameters = _by_layer(stack, flat)
        layers = [with_parameters(*pair) for pair in zip(stack.layers, parameters, strict=True)]
        strategy = settings.new_strategy()
        strategy.begin_backward(rest[ctx.num_parameters :], parameters)
        grad_x = allocate_like(x) if ctx.needs_input_grad[1] else None
        sums = [torch.zeros_like(p) for p in flat]
        carried = _final_gradients(x, batch_sizes, parameters, grad_h, grad_c)
        for chunk, part in reversed(list(enumerate(parts(settings.chunk, x, batch_sizes)))):
            x_part = x[part.rows].detach().contiguous().requires_grad_(grad_x is not None)
            with torch.enable_grad(), ctx.autocast():
                graph = _rebuild(
                    settings, strategy, layers, chunk, x_part, masks, part.packing, parameters
                )
            of_top = _part_of_output(settings, grad_output, part)
            carried, gradients, grad_x_part = graph.backpropagate(carried, of_top, flat, x_part)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient
            if grad_x is not None and grad_x_part is not None:
                grad_x[part.rows] = grad_x_part
        strategy.finish()
        count = len(layers)
        grad_h_0, grad_c_0 = torch.stack(carried[:count]), torch.stack(carried[count:])
        return None, grad_x, grad_h_0, grad_c_0, None, None, *sums


def _run_forward(
    settings: Settings,
    strategy: Strategy,
    x: Tensor,
    masks: Tensor | None,
    batch_sizes: Tensor | None,
    parameters: list[Parameters],
) -> Tensor:
    """Run all chunks and return the output, of all steps or of the last."""
    stack = settings.stack
    batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
    output: Tensor | None = None
    for part in parts(settings.chunk, x, batch_sizes):
        strategy.begin_chunk(part.begin, part.batch_sizes)
        y = last = x[part.rows].contiguous()
        for index, layer in enumerate(stack.layers):
            y = drop(y, index, masks, part.packing)
            out, last = strategy.forward(index, layer(y), parameters[index])
            y, last = add_input(stack, index, y, out, last, part.packing)
        new, rows = _pick(settings, y, last, part)
        if output is None:
            length = x.shape[0] if settings.return_sequence else batch
            output = allocate(new, [length, *new.shape[1:]])
        output[rows] = new
    assert output is not None  # there is at least one step
    return output


def _rebuild(
    settings: Settings,
    strategy: Strategy,
    layers: Sequence[nn.Module],
    chunk: int,
    x: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
    parameters: list[Parameters],
) -> _ChunkGraph:
    """Run a chunk once more, with gradients, from states that the strategy restores."""
    leaves = strategy.leaves(chunk)
    finals: list[States] = []
    batch_sizes = None if packing is None else packing.batch_sizes
    last = x
    for index, layer in enumerate(layers):
        x = drop(x, index, masks, packing)
        z, p = layer(x), parameters[index]
        out, h_n, c_n = strategy.rebuild(chunk, index, z, leaves[index], p, batch_sizes)
        finals.append((h_n, c_n))
        x, last = add_input(settings.stack, index, x, out, h_n, packing)
    if not settings.return_sequence:
        x = last if packing is None else x[packing.last_rows]
    before, after = ([h for h, _ in states] + [c for _, c in states] for states in (leaves, finals))
    return _ChunkGraph(before, after, x)


@dataclass(frozen=True)
class _ChunkGraph:
    """A chunk with its graph.

    Attributes:
        before: h of every layer where the chunk begins, then c of every layer; leaves.
        after: the same where the chunk ends.
        top: what the output contains of the top layer: all steps of the chunk, or a last one.
    """

    before: list[Tensor]
    after: list[Tensor]
    top: Tensor

    def backpropagate(
        self,
        carried: Sequence[Tensor],
        grad_top: Tensor | None,
        flat: list[Tensor],
        x: Tensor,
    ) -> tuple[list[Tensor], Sequence[Tensor], Tensor | None]:
        """Backpropagate through the chunk, which frees its graph.

        Args:
            carried: gradients of ``after``.
            grad_top: gradient of ``top``, or None.
            flat: the parameters.
            x: the chunk's input.

        Returns:
            Gradients of ``before``, of the parameters, and of ``x`` if it requires one.
        """
        pairs = zip([*self.after, self.top], [*carried, grad_top], strict=True)
        outputs, upstream = zip(*((y, g) for y, g in pairs if g is not None), strict=True)
        gradients = torch.autograd.grad(
            outputs,
            [*self.before, *flat, *([x] if x.requires_grad else [])],
            upstream,
            allow_unused=True,
            materialize_grads=True,
        )
        states, end = len(self.before), len(self.before) + len(flat)
        grad_x = gradients[end] if x.requires_grad else None
        return list(gradients[:states]), gradients[states:end], grad_x


def _final_gradients(
    x: Tensor,
    batch_sizes: Tensor | None,
    parameters: list[Parameters],
    grad_h: Tensor | None,
    grad_c: Tensor | None,
) -> list[Tensor]:
    """Return the gradients of h_n of every layer, then of c_n of every layer."""
    u = parameters[0]["recurrent_weight"]
    batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
    zeros = u.detach().new_zeros(len(parameters), batch, len(u))
    return [each for g in (grad_h, grad_c) for each in (zeros if g is None else g).unbind()]


def _pick(settings: Settings, y: Tensor, last: Tensor, part: Part) -> tuple[Tensor, Tensor | slice]:
    """Return what the output gets of a chunk, and at which rows."""
    if settings.return_sequence:
        return y, part.rows
    return (last if part.packing is None else y[part.packing.last_rows]), part.ended


def _part_of_output(settings: Settings, gradient: Tensor | None, part: Part) -> Tensor | None:
    """Return the part of the output's gradient that belongs to a chunk."""
    if gradient is None:
        return None
    if settings.return_sequence:
        return gradient[part.rows]
    return gradient[part.ended] if part.ends_some else None


def _named_parameters(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return layer.named_parameters(remove_duplicate=False)  # a shared one under each of its names


def _by_layer(stack: Stack, flat: Sequence[Tensor]) -> list[Parameters]:
    tensors = iter(flat)
    return [{name: next(tensors) for name, _ in _named_parameters(layer)} for layer in stack.layers]


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that restores the present state of autocast.

    Its cache of cast weights stays off: it would hand casts without gradients, made here, to other
    users of the weights, and those of one chunk's graph to the next.
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return partial(torch.autocast, device, dtype, enabled, cache_enabled=False)
