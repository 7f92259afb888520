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

What a strategy keeps, and how it gets a chunk back, is in :mod:`irevrnn.traces`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from irevrnn.memory import SEGMENT
from irevrnn.traces import TRACES, Parameters, Trace

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
        activation, coupling_activation: names of g and f.
        residual: add a layer's input to its output where their shapes agree.
        return_sequence: whether outputs of all steps are wanted.
        strategy: one of :data:`irevrnn.memory.OF_THE_STACK`.
        chunk: steps in a chunk.
    """

    layers: Sequence[nn.Module]
    activation: str
    coupling_activation: str
    residual: bool
    return_sequence: bool = True
    strategy: str = ""
    chunk: int = 0


def chunk_length(strategy: str, steps: int, batch: int, hidden: int) -> int:
    """Steps in a chunk: about sqrt(T) for ``checkpoint``, else whole segments independent of T."""
    if strategy == "checkpoint":
        return max(SHORTEST_CHECKPOINT, math.isqrt(steps - 1) + 1)
    return max(1, CHUNK_NUMBERS // max(1, batch * hidden) // SEGMENT) * SEGMENT


def run_layers(
    stack: Stack,
    x: Tensor,
    masks: Tensor | None,
    scan_layer: Callable[[int, Tensor], tuple[Tensor, Tensor]],
    drive: Callable[[int, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Run some steps through all layers.

    Args:
        stack: the layers.
        x: (T, B, in).
        masks: dropout masks between layers, (L - 1, B, H), or None.
        scan_layer: (layer, z) to (out, h_n).
        drive: (layer, x) to z.

    Returns:
        The top layer's output (T, B, H) and its last step (B, H), which has a gradient of its own:
        a slice of the output would cost a gradient of the output's size.
    """
    last = x
    for index in range(len(stack.layers)):
        if index > 0 and masks is not None:
            x = x * masks[index - 1]
        out, last = scan_layer(index, drive(index, x))
        if stack.residual and x.shape == out.shape:
            out, last = out + x, last + x[-1]
        x = out
    return x, last


class _Chunked(torch.autograd.Function):
    """The stack as one node of the graph: output, h_n and c_n from x, states, masks, parameters."""

    @staticmethod
    def forward(
        ctx: Any, stack: Stack, record: bool, x: Tensor, h_0: Tensor, c_0: Tensor,
        masks: Tensor | None, *flat: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parameters = _by_layer(stack, flat)
        trace = _new_trace(stack)
        trace.begin(h_0, c_0, parameters, record)
        autocast = _autocast_state(x.device.type)
        with torch.autocast(**autocast):
            output = _with_parameters(
                stack, parameters, lambda: _run_forward(stack, trace, x, masks, parameters)
            )
        if record:
            ctx.stack, ctx.autocast, ctx.num_parameters = stack, autocast, len(flat)
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(x, masks, *flat, *trace.held())
        return (output, *trace.finals(h_0.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Any, grad_h: Any, grad_c: Any) -> Any:
        stack: Stack = ctx.stack
        _check_no_batch_statistics(stack)
        x, masks, *rest = ctx.saved_tensors
        flat = [p.detach().requires_grad_() for p in rest[: ctx.num_parameters]]
        parameters = _by_layer(stack, flat)
        trace = _new_trace(stack)
        trace.begin_backward(rest[ctx.num_parameters :], parameters)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        sums = [torch.zeros_like(p) for p in flat]
        layers, u = len(stack.layers), parameters[0]["recurrent_weight"]
        zeros = u.detach().new_zeros(layers, x.shape[1], len(u))
        carried = [h for g in (grad_h, grad_c) for h in (zeros if g is None else g).unbind()]

        def run() -> list[Tensor]:
            """Go through the chunks from the last; returns the gradients of h_0 and c_0."""
            before = carried
            for chunk, part in reversed(list(enumerate(_parts(x.shape[0], stack.chunk)))):
                x_part = x[part].detach().contiguous().requires_grad_(grad_x is not None)
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    graph = _rebuild(stack, trace, chunk, x_part, masks, parameters)
                at_end = part.stop >= x.shape[0]
                before, gradients, grad_x_part = graph.backpropagate(
                    before, _part_of_output(stack, grad_output, part, at_end), flat, x_part
                )
                for total, gradient in zip(sums, gradients, strict=True):
                    total += gradient
                if grad_x is not None and grad_x_part is not None:
                    grad_x[part] = grad_x_part
            return before

        before = _with_parameters(stack, parameters, run)
        trace.check_empty()
        grad_h_0, grad_c_0 = torch.stack(before[:layers]), torch.stack(before[layers:])
        return None, None, grad_x, grad_h_0, grad_c_0, None, *sums


def _run_forward(
    stack: Stack, trace: Trace, x: Tensor, masks: Tensor | None, parameters: list[Parameters]
) -> Tensor:
    """Run all chunks and return the output, of all steps or of the last."""
    output: Tensor | None = None
    for part in _parts(x.shape[0], stack.chunk):
        trace.start_chunk(part.start)
        y, last = run_layers(
            stack,
            x[part].contiguous(),
            masks,
            lambda index, z: trace.forward(index, z, parameters[index]),
            lambda index, x: stack.layers[index](x),
        )
        if not stack.return_sequence:
            output = last
            continue
        if output is None:
            output = y.new_empty(x.shape[0], *y.shape[1:])
        output[part] = y
    assert output is not None  # there is at least one step
    return output


@dataclass(frozen=True)
class _ChunkGraph:
    """A chunk with its graph.

    Attributes:
        before: h of every layer where the chunk begins, then c of every layer; leaves.
        after: the same where it ends.
        y, last: the top layer's output and its last step.
    """

    before: list[Tensor]
    after: list[Tensor]
    y: Tensor
    last: Tensor

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
            grad_output: gradient of ``y`` (3-dimensional), or of ``last``.
            flat: the parameters.
            x: the chunk's input.

        Returns:
            Gradients of ``before``, of the parameters, and of ``x`` if it requires one.
        """
        top = self.last if grad_output is not None and grad_output.dim() == 2 else self.y
        pairs = zip([*self.after, top], [*carried, grad_output], strict=True)
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
    parameters: list[Parameters],
) -> _ChunkGraph:
    """Run a chunk once more, with gradients, from states that the strategy gets back."""
    leaves = trace.leaves(chunk)
    finals: list[tuple[Tensor, Tensor]] = []

    def scan_layer(index: int, z: Tensor) -> tuple[Tensor, Tensor]:
        out, h, c = trace.rebuild(chunk, index, z, leaves[index], parameters[index])
        finals.append((h, c))
        return out, h

    y, last = run_layers(stack, x, masks, scan_layer, lambda index, x: stack.layers[index](x))
    before, after = ([h for h, _ in states] + [c for _, c in states] for states in (leaves, finals))
    return _ChunkGraph(before, after, y, last)


def _part_of_output(
    stack: Stack, gradient: Tensor | None, part: slice, at_end: bool
) -> Tensor | None:
    """What of the output's gradient belongs to a chunk."""
    if gradient is None or stack.return_sequence:
        return None if gradient is None else gradient[part]
    return gradient if at_end else None


def _check_no_batch_statistics(stack: Stack) -> None:
    """Refuse batch normalisation in training, whose statistics run over more than a chunk."""
    modules = (module for layer in stack.layers for module in layer.modules())
    if any(isinstance(module, nn.BatchNorm1d) and module.training for module in modules):
        raise ValueError(
            f"memory={stack.strategy!r} cannot train with norm='batch', whose statistics run over "
            "all steps; use norm='layer', or memory='recompute'. A model in evaluation mode must "
            "stay so until its backward pass"
        )


def run_chunked(
    stack: Stack, x: Tensor, h_0: Tensor, c_0: Tensor, masks: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stack over x, chunk by chunk.

    Args:
        stack: with its strategy and chunk length.
        x: (T, B, in); need not be contiguous.
        h_0, c_0: (L, B, H).
        masks: dropout masks between layers, (L - 1, B, H), or None.

    Returns:
        Output (T, B, H), or (B, H) of the last step alone; ``h_n`` and ``c_n``, (L, B, H).

    Raises:
        OverflowError: a value left the range of the fixed-point numbers.
        ValueError: batch normalisation in training, or a recurrent weight that cannot be undone.
        ReversalError: (in the backward pass) going back did not meet the states of the way forward.
    """
    _check_no_batch_statistics(stack)
    flat = [p for layer in stack.layers for p in layer.parameters()]
    record = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h_0, c_0, *flat))
    return _Chunked.apply(stack, record, x, h_0, c_0, masks, *flat)


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


def _parts(steps: int, chunk: int) -> Iterator[slice]:
    for begin in range(0, steps, chunk):
        yield slice(begin, min(steps, begin + chunk))


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
