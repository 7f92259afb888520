"""Backpropagation through the whole stack, chunk by chunk, from the last chunk to the first.

In the forward pass a chunk of steps goes through all modules before the next chunk, and nothing of
it is saved but what the strategy needs to restore its initial states. The backward pass takes the
chunks in reverse order: it rebuilds a chunk with its graph, backpropagates through it and drops it.
So neither the drive nor the output of any recurrence exists for more than a chunk at a time.

What a strategy saves, and how it rebuilds a chunk, is in :mod:`irevrnn.strategies.checkpoint` and
:mod:`irevrnn.strategies.reversible`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.kernels.allocator import allocate, allocate_like
from irevrnn.kernels.observers import PLAIN, observed, observed_as, sees_modules
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Recurrence, State
from irevrnn.strategies.chunk_graph import Gradients, backpropagate, check_leaves
from irevrnn.strategies.chunks import Chunks
from irevrnn.strategies.dropout_masks import Masks
from irevrnn.strategies.resident import Watch
from irevrnn.strategies.rules import (
    check_initialised,
    check_no_cached_weights,
    check_reverse_mode,
    first_order_only,
    require,
    unsupported_reason,
)
from irevrnn.strategies.run import Plan, Run
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States, Strategy, flat


def run_chunkwise(
    stack: Stack, plan: Plan, x: Tensor, states: States, steps: Steps, return_sequence: bool
) -> tuple[Tensor, list[State]]:
    """Run a stack over a sequence, chunk by chunk.

    Args:
        stack: the modules, of one direction.
        plan: for ``checkpoint``, ``reversible`` or ``store_fixed``.
        x: (T, B, in), which need not be contiguous; or (N, in) packed.
        states: of every recurrence before the first step.
        steps: all steps.
        return_sequence: whether to return the output of all steps.

    Returns:
        The output, (T, B, out) or (N, out), or (B, out) of the last step; the states of every
        recurrence after the last step.

    Raises:
        NotImplementedError: a transform of ``torch.func``, or forward-mode differentiation.
        OverflowError: a value left the range of the fixed-point numbers.
        ValueError: the strategy cannot serve the modules, or one changes the input or a buffer.
        RuntimeError: there are no kernels for fixed point, or none for this dtype.
        ReversalError: (in the backward pass) a state was not reconstructed exactly.
    """
    memory = plan.memory
    require(unsupported_reason(stack, memory))
    parameters = parameters_of(stack)
    initial = flat(states)
    check_reverse_mode(memory, x, *initial, *parameters)
    counts = [None if state is None else len(state) for state in states]
    run = Run(stack, plan, Chunks(steps, plan.chunk), counts, return_sequence)
    run.record = records(x, *initial, *parameters)
    run.observed = (
        observed() or sees_modules() or any(type(p) not in PLAIN for p in (x, *parameters))
    )
    if run.record:
        check_no_cached_weights(memory, stack.named)
        check_initialised(memory, parameters)
    output, *finals = _Chunkwise.apply(run, x, *initial, *parameters)
    tensors = iter(finals)
    return output, [tuple(islice(tensors, count)) for count in run.finals]


def parameters_of(stack: Stack) -> list[Tensor]:
    """Return the parameters of all modules, each once."""
    return list(nn.ModuleList(stack.modules).parameters())


def records(*tensors: Tensor) -> bool:
    """Return whether autograd records what is computed from these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


class _Chunkwise(torch.autograd.Function):
    """The stack as one node of the graph: output and final states of x, states and parameters."""

    @staticmethod
    def forward(ctx: Any, run: Run, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        strategy, resets = run.new_strategy(), run.chunks.steps.resets
        initial = iter(tensors)
        states = [None if n is None else tuple(islice(initial, n)) for n in run.counts]
        parameters = tuple(initial)
        if resets is not None:
            states = _after_resets(states, run)
        strategy.begin(states, run.record, len(run.chunks))
        with run.autocast(), observed_as(run.observed):
            output = _run_forward(run, strategy, x)
        finals = strategy.finals(run.stack.like.dtype)
        run.finals = [len(state) for state in finals]
        if run.record:
            ctx.run, ctx.memory, ctx.parameters = run, run.plan.memory, parameters
            ctx.set_materialize_grads(False)
            saved = strategy.saved()
            run.layout = strategy.layout
            buffers = [b for module in run.stack.modules for b in module.buffers()]
            watched = [*parameters, *buffers, *([] if resets is None else [resets])]
            ctx.masks, ctx.watched = list(run.masks), len(watched)
            ctx.save_for_backward(x, *watched, *run.masks.values(), *saved)
            run.masks = Masks()
        # Copies: what is saved must not have this node, or change with what a user does to these.
        flattened = [x.clone() for state in finals for x in state]
        ctx.mark_non_differentiable(
            *(x for x in flattened if not (x.is_floating_point() or x.is_complex()))
        )
        return output, *flattened

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad_output: Any, *grad_finals: Any) -> Any:
        run: Run = ctx.run
        run.check_modes()
        x, *rest = ctx.saved_tensors  # where PyTorch finds that one was changed in place
        saved = iter(rest[ctx.watched :])
        run.masks = {place: next(saved) for place in ctx.masks}
        strategy = run.new_strategy()
        strategy.layout = run.layout
        strategy.begin_backward([*saved], len(run.chunks))
        needed = ctx.needs_input_grad[len(ctx.needs_input_grad) - len(ctx.parameters) :]
        gradients = Gradients(run.stack, ctx.parameters, needed, ctx.memory)
        grad_x = allocate_like(x) if ctx.needs_input_grad[1] else None
        carried: Sequence[Tensor | None] = grad_finals
        watch, kept_bytes = Watch(run.plan.graph), 0

        def again(index: int) -> None:
            with torch.no_grad(), run.replayed(index):
                run.forward(strategy, x, run.chunks[index])

        with gradients.collected():
            for index in reversed(range(len(run.chunks))):
                steps = run.chunks[index]
                strategy.restore(index, again)
                part = x[steps.rows].detach().contiguous().requires_grad_(grad_x is not None)
                before, after, top = _rebuild(run, strategy, index, part, steps)
                strategy.note_output(index, top.detach())
                if index == len(run.chunks) - 1:
                    check_leaves([*after, top], [*before, part, *ctx.parameters], ctx.memory)
                of_top = _part_of_output(run, grad_output, steps)
                carried, of_x = backpropagate(
                    before, [*after, top], [*carried, of_top], gradients, part
                )
                if grad_x is not None:
                    grad_x[steps.rows] = 0 if of_x is None else of_x
                    kept_bytes += part.nbytes
                del part, before, after, top, of_top, of_x
                watch.between_chunks(kept_bytes)
        strategy.finish()
        run.masks = Masks()
        return None, grad_x, *carried, *gradients.results()


def _after_resets(states: States, run: Run) -> States:
    """Return states that are 0 where the first step resets them: nobody reads what they were."""
    steps = run.chunks.steps
    assert steps.resets is not None
    sizes = steps.batch_sizes
    reset = steps.resets[0] if sizes is None else steps.resets[: int(sizes[0])]
    reset = nn.functional.pad(reset, (0, steps.batch - len(reset))).unsqueeze(1)
    return [
        tuple(x.masked_fill(reset, 0) for x in state) if r.full_precision and state else state
        for state, r in zip(states, run.stack.recurrences, strict=True)
    ]


def _run_forward(run: Run, strategy: Strategy, x: Tensor) -> Tensor:
    """Run all chunks and return the output, of all steps or of the last."""
    output: Tensor | None = None
    versions = _versions(run.stack, x) if run.record else {}
    for steps in run.chunks:
        with run.randomness.recorded(run.record, x):
            new = run.forward(strategy, x, steps)
        strategy.note_output(strategy.chunk, new)
        if output is None:
            length = x.shape[0] if run.return_sequence else steps.batch
            output = allocate(new, [length, *new.shape[1:]])
        output[steps.rows if run.return_sequence else steps.ended] = new
    for (place, name), version in (_versions(run.stack, x) if run.record else {}).items():
        if versions.get((place, name)) != version:
            what = (
                f"{run.stack.name(place)} changes its buffer {name!r}"
                if name
                else (f"{run.stack.name(0)}, or a module above it, changes the input in place")
            )
            raise ValueError(
                f"{what} while it runs, but memory={run.plan.memory!r} runs modules again and "
                "needs the same results each time; use memory='recompute', or a module that keeps "
                "no state and does not work in place"
            )
    assert output is not None  # there is at least one step
    return output


def _versions(stack: Stack, x: Tensor) -> dict[tuple[int, str], tuple[int, int]]:
    """Return the input and each buffer of each module, and how often they were written to."""
    named = {(i, name): b for i, m in enumerate(stack.modules) for name, b in m.named_buffers()}
    named[0, ""] = x
    return {key: (id(t), 0 if t.is_inference() else t._version) for key, t in named.items()}


def _rebuild(
    run: Run, strategy: Strategy, index: int, x: Tensor, steps: Steps
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run a chunk once more, with its graph, from states that the strategy restores.

    Returns:
        The states before the chunk, leaves of the graph; those after it; the output.
    """
    leaves = strategy.leaves()
    finals: States = []

    def recur(number: int, recurrence: Recurrence, x: Tensor) -> tuple[Tensor, State]:
        drive = recurrence.drive(x)
        out, after = strategy.rebuild(index, steps, number, drive, leaves[number])
        finals.append(after)
        return out, after

    with torch.enable_grad(), run.replayed(index):
        # Tools that watch modules, such as FlopCounterMode, take no leaf within autograd.grad.
        top = run.take(x.view_as(x), steps, recur)
    return flat(leaves), flat(finals), top


def _part_of_output(run: Run, gradient: Tensor | None, steps: Steps) -> Tensor | None:
    """Return the part of the output's gradient that belongs to a chunk."""
    if gradient is None:
        return None
    if run.return_sequence:
        return gradient[steps.rows]
    return gradient[steps.ended] if steps.ends_some else None
