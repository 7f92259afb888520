"""Backpropagation chunk by chunk, from the end of time: the strategies of the whole stack.

Forward, a chunk of steps goes through all layers before the next, and nothing of it is kept but
what the strategy needs to get its starting states back. Backward, from the last chunk to the first:
rebuild the chunk with gradients, backpropagate through it, drop it. So neither z nor any layer's
output exists for more than a chunk of steps at a time.

- ``checkpoint`` keeps (h, c) of every layer where chunks begin, and runs each chunk once more.
- ``reversible`` keeps the final states and the bits that were forgotten, and runs each chunk back,
  layer by layer from the bottom up: the inverse gives a layer's outputs, which the layer above
  needs as its input.
- ``store_fixed`` runs the arithmetic of ``reversible`` and keeps every state instead: the control
  that shows whether going back changes anything.

What a strategy keeps, and how it gets a chunk back, is in :mod:`irevrnn.strategies.traces`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from irevrnn.allocator import allocate, allocate_like
from irevrnn.packing import Packing
from irevrnn.strategies.first_order import check_reverse_mode, once_differentiable
from irevrnn.strategies.rules import SEGMENT
from irevrnn.strategies.traces import RECURRENCE, TRACES, Parameters, Trace

Result = TypeVar("Result")
#: Numbers of one layer's output in a chunk of ``reversible``, whose length does not depend on T.
CHUNK_NUMBERS = 2**18
#: Shorter chunks of ``checkpoint`` spend their time on the calls of operators.
SHORTEST_CHECKPOINT = 64


@dataclass(frozen=True)
class Stack:
    """A stack of layers and how it runs.

    Attributes:
        layers: modules that turn their input into the drive z, with recurrence parameters.
        reverse_layers: the same for the other direction, if there is one.
        activation, coupling_activation: names of g and f.
        residual: add a layer's input to its output where their shapes agree.
        return_sequence: whether outputs of all steps are wanted.
        strategy: one of :data:`irevrnn.strategies.rules.OF_THE_STACK`, or of ``OF_A_LAYER`` for
            :func:`irevrnn.strategies.layerwise.run_whole`.
        chunk: steps in a chunk.
    """

    layers: Sequence[nn.Module]
    activation: str
    coupling_activation: str
    residual: bool
    return_sequence: bool
    strategy: str
    chunk: int = 0
    reverse_layers: Sequence[nn.Module] = ()


def chunk_length(strategy: str, steps: int, batch: int, hidden: int) -> int:
    """Steps in a chunk: about sqrt(T) for ``checkpoint``, else whole segments independent of T."""
    if strategy == "checkpoint":
        return max(SHORTEST_CHECKPOINT, math.isqrt(steps - 1) + 1)
    return max(1, CHUNK_NUMBERS // max(1, batch * hidden) // SEGMENT) * SEGMENT


def run_layers(
    stack: Stack,
    x: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
    run_layer: Callable[[int, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Run some steps through all layers.

    Args:
        stack: the layers.
        x: (T, B, in), or (N, in) packed.
        masks: dropout masks between layers, (L - 1, B, H), or None.
        packing: of x, if it is packed.
        run_layer: (layer, its input) to (its output, the last step's).

    Returns:
        The top layer's output, and its last step: (B, H), which has a gradient of its own, as a
        slice of the output would cost a gradient of the output's size; (E, H) of the sequences
        that end, if packed.
    """
    last = x
    for index in range(len(stack.layers)):
        if index > 0 and masks is not None:
            mask = masks[index - 1]
            x = x * (mask if packing is None else mask[packing.sequences])
        out, last = run_layer(index, x)
        if stack.residual and x.shape == out.shape:
            out, last = out + x, last + x[-1] if packing is None else last
        x = out
    return x, (last if packing is None else x[packing.last_rows])


class _Chunked(torch.autograd.Function):
    """The stack as one node of the graph: output, h_n and c_n from x, states, masks, parameters."""

    @staticmethod
    def forward(
        ctx: Any, stack: Stack, record: bool, x: Tensor, h_0: Tensor, c_0: Tensor,
        masks: Tensor | None, batch_sizes: Tensor | None, *flat: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parameters = _by_layer(stack, flat)
        trace = _new_trace(stack)
        trace.begin(h_0, c_0, parameters, record)
        autocast = _autocast_state(x.device.type)
        with torch.autocast(**autocast):
            output = _with_parameters(
                stack,
                parameters,
                lambda: _run_forward(stack, trace, x, masks, batch_sizes, parameters),
            )
        if record:
            ctx.stack, ctx.autocast, ctx.num_parameters = stack, autocast, len(flat)
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(x, masks, batch_sizes, *flat, *trace.saved())
        return (output, *trace.finals(h_0.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Any, grad_h: Any, grad_c: Any) -> Any:
        stack: Stack = ctx.stack
        _check_no_batch_statistics(stack)
        x, masks, batch_sizes, *rest = ctx.saved_tensors
        flat = [p.detach().requires_grad_() for p in rest[: ctx.num_parameters]]
        parameters = _by_layer(stack, flat)
        trace = _new_trace(stack)
        trace.begin_backward(rest[ctx.num_parameters :], parameters)
        grad_x = allocate_like(x) if ctx.needs_input_grad[2] else None
        sums = [torch.zeros_like(p) for p in flat]
        layers, u = len(stack.layers), parameters[0]["recurrent_weight"]
        batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        zeros = u.detach().new_zeros(layers, batch, len(u))
        carried = [h for g in (grad_h, grad_c) for h in (zeros if g is None else g).unbind()]

        def run() -> list[Tensor]:
            """Go through the chunks from the last; returns the gradients of h_0 and c_0."""
            before = carried
            for chunk, part in reversed(list(enumerate(_parts(stack, x, batch_sizes)))):
                x_part = x[part.rows].detach().contiguous().requires_grad_(grad_x is not None)
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    graph = _rebuild(stack, trace, chunk, x_part, masks, part.packing, parameters)
                before, gradients, grad_x_part = graph.backpropagate(
                    before, _part_of_output(stack, grad_output, part), flat, x_part
                )
                for total, gradient in zip(sums, gradients, strict=True):
                    total += gradient
                if grad_x is not None and grad_x_part is not None:
                    grad_x[part.rows] = grad_x_part
            return before

        before = _with_parameters(stack, parameters, run)
        trace.check_empty()
        grad_h_0, grad_c_0 = torch.stack(before[:layers]), torch.stack(before[layers:])
        return None, None, grad_x, grad_h_0, grad_c_0, None, None, *sums


def _run_forward(
    stack: Stack,
    trace: Trace,
    x: Tensor,
    masks: Tensor | None,
    batch_sizes: Tensor | None,
    parameters: list[Parameters],
) -> Tensor:
    """Run all chunks and return the output, of all steps or of the last."""
    batch = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
    output: Tensor | None = None
    for part in _parts(stack, x, batch_sizes):
        trace.start_chunk(part.begin, part.batch_sizes)

        def run_layer(index: int, x: Tensor) -> tuple[Tensor, Tensor]:
            return trace.forward(index, stack.layers[index](x), parameters[index])

        y, last = run_layers(stack, x[part.rows].contiguous(), masks, part.packing, run_layer)
        new, where = (y, part.rows) if stack.return_sequence else (last, part.ended)
        if output is None:
            length = x.shape[0] if stack.return_sequence else batch
            output = allocate(new, [length, *new.shape[1:]])
        output[where] = new
    assert output is not None  # there is at least one step
    return output


@dataclass(frozen=True)
class _ChunkGraph:
    """A chunk with its graph.

    Attributes:
        before: h of every layer where the chunk begins, then c of every layer; leaves.
        after: the same where it ends.
        top: what the output has of the top layer: all steps of the chunk, or a last one.
    """

    before: list[Tensor]
    after: list[Tensor]
    top: Tensor

    def backpropagate(
        self,
        carried: Sequence[Tensor],
        grad_output: Tensor | None,
        flat: list[Tensor],
        x: Tensor,
    ) -> tuple[list[Tensor], Sequence[Tensor], Tensor | None]:
        """Backpropagate through the chunk, which frees its graph.

        Args:
            carried: gradients of ``after``.
            grad_output: gradient of ``top``, or None.
            flat: the parameters.
            x: the chunk's input.

        Returns:
            Gradients of ``before``, of the parameters, and of ``x`` if it requires one.
        """
        pairs = zip([*self.after, self.top], [*carried, grad_output], strict=True)
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


def _rebuild(
    stack: Stack,
    trace: Trace,
    chunk: int,
    x: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
    parameters: list[Parameters],
) -> _ChunkGraph:
    """Run a chunk once more, with gradients, from states that the strategy gets back."""
    leaves = trace.leaves(chunk)
    finals: list[tuple[Tensor, Tensor]] = []

    batch_sizes = None if packing is None else packing.batch_sizes

    def run_layer(index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        z, p = stack.layers[index](x), parameters[index]
        out, h, c = trace.rebuild(chunk, index, z, leaves[index], p, batch_sizes)
        finals.append((h, c))
        return out, h

    y, last = run_layers(stack, x, masks, packing, run_layer)
    before, after = ([h for h, _ in states] + [c for _, c in states] for states in (leaves, finals))
    return _ChunkGraph(before, after, y if stack.return_sequence else last)


def _part_of_output(stack: Stack, gradient: Tensor | None, part: _Part) -> Tensor | None:
    """What of the output's gradient belongs to a chunk."""
    if gradient is None:
        return None
    if stack.return_sequence:
        return gradient[part.rows]
    return gradient[part.ended] if part.ends_some else None


def _check_no_batch_statistics(stack: Stack) -> None:
    """Refuse batch normalisation in training, whose statistics run over more than a chunk."""
    modules = (module for layer in stack.layers for module in layer.modules())
    if any(isinstance(module, nn.BatchNorm1d) and module.training for module in modules):
        raise ValueError(
            f"memory={stack.strategy!r} cannot train with norm='batch', whose statistics run over "
            "all steps; use norm='layer', or memory='recompute'. A model in evaluation mode must "
            "stay so until its backward pass"
        )


def _check_plain_recurrence(stack: Stack) -> None:
    """Refuse recurrent weights that a hook computes, as by pruning: chunks need them beforehand."""
    for index, layer in enumerate(stack.layers):
        plain = dict(layer.named_parameters(recurse=False))
        for name in RECURRENCE:
            if name not in plain:
                raise ValueError(
                    f"memory={stack.strategy!r} needs {name} of layer {index} as a parameter of "
                    "its own, but it is pruned or parametrized; use memory='recompute', or make it "
                    "permanent (torch.nn.utils.prune.remove)"
                )


def run_chunked(
    stack: Stack,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    masks: Tensor | None,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stack over x, chunk by chunk.

    Args:
        stack: with its strategy and chunk length.
        x: (T, B, in), which need not be contiguous; or (N, in) packed, not for fixed point.
        h_0, c_0: (L, B, H).
        masks: dropout masks between layers, (L - 1, B, H), or None.
        batch_sizes: (T,), if x is packed.

    Returns:
        Output (T, B, H) or (N, H), or (B, H) of the last step alone; ``h_n`` and ``c_n``,
        (L, B, H).

    Raises:
        NotImplementedError: a transform of ``torch.func``, or forward-mode differentiation.
        OverflowError: a value left the range of the fixed-point numbers.
        ValueError: batch normalisation in training, or a recurrent weight that cannot be undone.
        ReversalError: (in the backward pass) going back did not meet the states of the way forward.
    """
    _check_no_batch_statistics(stack)
    _check_plain_recurrence(stack)
    flat = [p for layer in stack.layers for p in layer.parameters()]
    check_reverse_mode(stack.strategy, x, h_0, c_0, *flat)
    record = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h_0, c_0, *flat))
    return _Chunked.apply(stack, record, x, h_0, c_0, masks, batch_sizes, *flat)


def _new_trace(stack: Stack) -> Trace:
    return TRACES[stack.strategy](stack.activation, stack.coupling_activation)


def _by_layer(stack: Stack, flat: Sequence[Tensor]) -> list[Parameters]:
    tensors = iter(flat)
    return [{name: next(tensors) for name, _ in layer.named_parameters()} for layer in stack.layers]


class _Layers(nn.Module):
    """The layers as one module, which runs what it is given."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, run: Callable[[], Result]) -> Result:
        return run()


def _with_parameters(
    stack: Stack, parameters: list[Parameters], run: Callable[[], Result]
) -> Result:
    """Run with these tensors in place of the layers' parameters.

    Once for all chunks: putting them in place takes some 60 us a layer.
    """
    tensors = {
        f"layers.{index}.{name}": tensor
        for index, layer in enumerate(parameters)
        for name, tensor in layer.items()
    }
    return functional_call(_Layers(stack.layers), tensors, (run,), tie_weights=False)


@dataclass(frozen=True)
class _Part:
    """A chunk of steps.

    Attributes:
        begin: its first step.
        rows: what it has of x.
        packing: of these rows, if they are packed.
        ended: the sequences that end in it; all of them, or none, if they have one length.
        ends_some: whether there are any.
    """

    begin: int
    rows: slice
    packing: Packing | None
    ended: Tensor | slice
    ends_some: bool

    @property
    def batch_sizes(self) -> Tensor | None:
        return None if self.packing is None else self.packing.batch_sizes


def _parts(stack: Stack, x: Tensor, batch_sizes: Tensor | None) -> Iterator[_Part]:
    total = x.shape[0] if batch_sizes is None else len(batch_sizes)
    packing = None if batch_sizes is None else Packing.of(batch_sizes, x.device)
    for begin in range(0, total, stack.chunk):
        steps = slice(begin, min(total, begin + stack.chunk))
        if packing is None:
            yield _Part(begin, steps, None, slice(None), steps.stop == total)
        else:
            rows, part = packing.part(steps)
            yield _Part(begin, rows, part, part.ended, len(part.ended) > 0)


def _autocast_state(device: str) -> dict[str, Any]:
    """Arguments of ``torch.autocast`` that set up the state of now.

    Its cache of cast weights stays off: it would hand casts without gradients, made here, to other
    users of the weights, and those of one chunk's graph to the next.
    """
    return {
        "device_type": device,
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
        "cache_enabled": False,
    }
