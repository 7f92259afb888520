"""Backpropagation through the whole stack, chunk by chunk, from the last chunk to the first.

In the forward pass a chunk of steps goes through all modules before the next chunk, and nothing of
it is saved but what the strategy needs to restore its initial states. The backward pass takes the
chunks in reverse order: it rebuilds a chunk with its graph, backpropagates through it and drops it.
So neither the drive nor the output of any recurrence exists for more than a chunk at a time.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from irevrnn.kernels.allocator import allocate_like, empty_cache
from irevrnn.kernels.observers import PLAIN, observed, sees_modules
from irevrnn.recurrences.compiled_blocks import CompiledBlocks
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import State
from irevrnn.strategies import rules
from irevrnn.strategies.checkpoint import Checkpoint
from irevrnn.strategies.chunk_graph import Gradients, backpropagate, check_leaves
from irevrnn.strategies.measure import SLACK, resident_bytes
from irevrnn.strategies.reversible import Reversible
from irevrnn.strategies.run import Run
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import Plan, States, flat, nested


def run_chunkwise(
    stack: Stack, plan: Plan, x: Tensor, states: States, steps: Steps, return_sequence: bool
) -> tuple[Tensor, list[State]]:
    """Run a stack of one direction over a sequence, chunk by chunk.

    ``plan`` is for ``checkpoint``, ``reversible`` or ``store_fixed``; the other arguments and
    results are as for :func:`irevrnn.strategies.layerwise.run_layerwise`.
    """
    rules.require(rules.unsupported_reason(stack, plan.memory))
    parameters, initial = parameters_of(stack), flat(states)
    rules.check_reverse_mode(plan.memory, x, *initial, *parameters)
    watched = any(type(t) not in PLAIN for t in (x, *initial, *parameters))
    watched = watched or observed() or sees_modules()
    if not watched and x.numel():
        stack = stack.compiled(not return_sequence and steps.packing is None)
        states = stack.pack(states)
    recording = records(x, *initial, *parameters)
    if recording:
        rules.check_initialised(plan.memory, parameters)
    kind = Checkpoint if plan.memory == "checkpoint" else Reversible
    run: Run = kind(stack, plan, x.device, steps, return_sequence, recording, watched)
    counts = [len(state or ()) for state in states]
    output, *finals = _Chunkwise.apply(run, counts, x, *flat(states), *parameters)
    return output, stack.unpack(nested(iter(finals), run.counts))


def parameters_of(stack: Stack) -> list[Tensor]:
    """Return the parameters of all modules, each once."""
    return list(nn.ModuleList(stack.modules).parameters())


def records(*tensors: Tensor) -> bool:
    """Return whether autograd records what is computed from these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


class _Chunkwise(torch.autograd.Function):
    """The stack as one node of the graph: output and final states of x, states and parameters."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, counts: list[int], x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        initial = iter(tensors)
        states, resets, first = nested(initial, counts), run.all_steps.resets, copy(run)
        parameters, first.x = tuple(initial), x
        first.begin(states)
        with first.ready():
            output = first.forward()
        finals = [*first.finals(run.stack.like.dtype), first.chosen_bits]
        run.counts = [len(state) for state in finals]
        if run.records:
            ctx.run, ctx.memory, ctx.parameters = run, run.plan.memory, parameters
            ctx.set_materialize_grads(False)
            buffers = [b for module in run.stack.modules for b in module.buffers()]
            watched = [*parameters, *buffers, *([] if resets is None else [resets])]
            saved, ctx.structure = tree_flatten((first.masks, first.record()))
            ctx.plain = [None if isinstance(each, Tensor) else each for each in saved]
            tensors_saved = [each if isinstance(each, Tensor) else None for each in saved]
            ctx.save_for_backward(x, *watched, *tensors_saved)
            run.masks = {}
        # Copies: what is saved must not have this node, or change with what a user does to these.
        flattened = [x.clone() for x in flat(finals)]
        ctx.mark_non_differentiable(
            *(x for x in flattened if not (x.is_floating_point() or x.is_complex()))
        )
        return output, *flattened

    @staticmethod
    def backward(ctx: Any, grad_output: Any, *grad_finals: Any) -> Any:
        if torch.compiler.is_compiling():  # by compiled autograd
            from irevrnn.kernels.compiling import run_uncompiled

            return run_uncompiled(_Chunkwise.backward, ctx, grad_output, *grad_finals)
        rules.check_reverse_mode(ctx.memory, grad_output, *grad_finals)
        # PyTorch's once_differentiable notices only upstream gradients that require a gradient.
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"memory={ctx.memory!r} cannot be differentiated twice (create_graph=True); "
                f"{rules.WHAT_CAN}"
            )
        run: Run = copy(ctx.run)
        run.check_modes()
        run.x, *saved = ctx.saved_tensors  # where PyTorch finds that one was changed in place
        pairs = zip(saved[len(saved) - len(ctx.plain) :], ctx.plain, strict=True)
        record = [plain if tensor is None else tensor for tensor, plain in pairs]
        run.masks, record = tree_unflatten(record, ctx.structure)
        run.begin_backward(record)
        needed = ctx.needs_input_grad[len(ctx.needs_input_grad) - len(ctx.parameters) :]
        layers = zip(run.stack.modules, run.stack.layers, strict=True)
        compiled = [module for module, layer in layers if isinstance(layer, CompiledBlocks)]
        gradients = Gradients(run.stack.modules, ctx.parameters, needed, compiled)
        grad_x = allocate_like(run.x) if ctx.needs_input_grad[2] else None
        carried: list[Tensor | None] = [*grad_finals]
        of_bits = [carried.pop() for _ in range(run.counts[-1])]  # the same for every chunk
        # Freed blocks between blocks that are in use serve no larger ones, and add up.
        kept, start = 0, resident_bytes() if run.plan.graph else 0
        slack = max(SLACK, run.plan.graph)  # what a chunk frees serves the next one
        with gradients.collected(), run.ready(gradients):
            for chunk in reversed(range(run.chunks)):
                leaves = run.restore(chunk)
                run.take_up(chunk)
                rows = run.steps.rows
                before, part = flat(leaves), run.x[rows].detach().contiguous()
                part.requires_grad_(grad_x is not None)
                after, top = run.rebuild(part, leaves)
                if chunk == run.chunks - 1:
                    check_leaves([*after, top], [*before, part, *ctx.parameters], ctx.memory)
                upstream = [*carried, *of_bits, None]
                if grad_output is not None and run.shows:
                    upstream[-1] = grad_output[run.place]
                carried, of_x = backpropagate(before, [*after, top], upstream, gradients, part)
                if grad_x is not None:
                    grad_x[rows] = 0 if of_x is None else of_x
                    kept += part.nbytes
                del leaves, part, before, after, top, upstream, of_x
                if start and resident_bytes() > start + kept + slack:
                    empty_cache()
                    start = max(start, resident_bytes() - kept)  # the rest is in use
        run.finish()
        return None, None, grad_x, *carried, *gradients.results()
