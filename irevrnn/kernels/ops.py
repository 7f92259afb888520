"""The registered operators ``torch.ops.irevrnn.scan`` and ``scan_backward``.

``csrc/`` holds their schema, kernels and autograd formula. Here are the shapes they return, for
``torch.compile``, and the second derivative. Transforms of ``torch.func`` run the reference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import register_autograd, register_fake

from irevrnn.kernels import reference
from irevrnn.kernels.jit import build, cuda
from irevrnn.kernels.jit.compiler import BuildError
from irevrnn.kernels.observers import PLAIN, observed

#: The interval of a scan that no backward pass follows.
NOTHING_SAVED = -1
#: Steps between two saved cell states under ``recompute``: large enough that c costs little beside
#: the output, small enough that the replayed values of a segment stay in the processor's cache.
SEGMENT = 16
#: Dtypes that no kernel takes: the recurrence is computed in float32.
HALF = (torch.bfloat16, torch.float16)


@build.once_per_process
def load_operators() -> bool:
    """Build the C++ kernels on first use and register the operators; warn if that fails."""
    try:
        build.build_operators()
    except (BuildError, OSError) as error:
        build.warn(
            f"irevrnn runs its slow PyTorch reference, because the C++ kernels could not be built: "
            f"{error}\nCompared with nn.LSTM, training takes about 2.4 times as long with "
            "memory='recompute' (the default), and 0.8 times as long with memory='store'."
        )
        return False
    register_fake("irevrnn::scan", _scan_fake)
    register_fake("irevrnn::scan_backward", _scan_backward_fake)
    register_fake("irevrnn::selective_scan", _selective_fake)
    register_fake("irevrnn::selective_scan_backward", _selective_backward_fake)
    register_autograd(
        "irevrnn::selective_scan", _selective_backward, setup_context=_keep_for_selective
    )
    register_autograd("irevrnn::scan_backward", _second_backward, setup_context=_keep_for_second)
    return True


def load_cuda_operators() -> str:
    """Register the CUDA kernels, built if the cache has none; return why that fails, or ""."""
    if not load_operators():
        return "the C++ kernels, which register the operators, could not be built"
    return cuda.load()


def eager_float32(*tensors: Tensor) -> bool:
    """Return whether all tensors are plain float32 on the CPU, and no mode or transform is on."""
    if observed() or has_tangent(*tensors):
        return False
    for t in tensors:  # a generator would take twice as long
        if type(t) not in PLAIN or t.dtype is not torch.float32 or not t.is_cpu:
            return False
    return True


def has_tangent(*arguments: Any) -> bool:
    """Return whether forward-mode differentiation goes through one of the arguments."""
    if forward_ad._current_level < 0:  # as unpack_dual asks, for each tensor
        return False
    tensors = (x for x in arguments if isinstance(x, Tensor))
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def _scan_fake(*arguments: Any) -> tuple[Tensor, ...]:
    z, h_0, c_0, _, a, _, batch_sizes, _, _, interval, *_ = arguments
    steps = z.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    if interval == NOTHING_SAVED:
        shape = 0, *h_0.shape
    elif interval > 0:  # c every K steps, but for c_0, which the caller has
        shape = (steps + interval - 1) // interval - 1, *h_0.shape
    elif batch_sizes is None:  # f(p) and f(c) of every coupling and step
        shape = steps, 2 * a.shape[0], *h_0.shape
    else:
        shape = 2 * a.shape[0] * z.shape[0], z.shape[1]
    return *(x.new_empty(x.shape) for x in (z, h_0, c_0)), h_0.new_empty(shape)


def _scan_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    _, _, _, out, _, *states_and_weights = arguments[:10]
    return tuple(x.new_empty(x.shape) for x in (out, *states_and_weights))


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, activation, coupling_activation, _, _, resets = inputs
    ctx.options = {"activation": activation, "coupling_activation": coupling_activation}
    ctx.save_for_backward(*tensors, resets)


def _second_backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate the reference's gradient, in which ``saved`` follows from the other inputs."""
    *upstream, out, _, h_0, c_0, u, a, b, batch_sizes, resets = ctx.saved_tensors
    pairs = zip(upstream, (out, h_0, c_0), strict=True)
    grads = [torch.zeros_like(x) if g is None else g for g, x in pairs]
    options = dict(ctx.options, batch_sizes=batch_sizes, resets=resets)
    backward = partial(reference.scan_backward, **options)
    pull_back: Any = torch.func.vjp(backward, *grads, out, h_0, c_0, u, a, b)[1]
    *of_upstream, of_out, of_h_0, of_c_0, of_u, of_a, of_b = pull_back(gradients)
    of_upstream = [None if g is None else x for g, x in zip(upstream, of_upstream, strict=True)]
    return *of_upstream, of_out, None, of_h_0, of_c_0, of_u, of_a, of_b, *(None,) * 6


def _selective_fake(*arguments: Any) -> tuple[Tensor, ...]:
    z, h_0, c_0, turns, batch_sizes, interval, *_ = arguments
    nothing = turns[0][:0]
    return _scan_fake(z, h_0, c_0, None, nothing, None, batch_sizes, None, None, interval)


def _selective_backward_fake(*arguments: Any) -> list[Tensor]:
    _, _, _, out, _, h_0, c_0, turns, *_ = arguments
    return [x.new_empty(x.shape) for x in (out, h_0, c_0, *turns)]


def _keep_for_selective(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, h_0, c_0, turns, batch_sizes, *ctx.numbers, resets = inputs
    ctx.save_for_backward(output[0], output[3], h_0, c_0, *turns, batch_sizes, resets)
    ctx.set_materialize_grads(False)


def _selective_backward(ctx: Any, *arriving: Tensor | None) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise NotImplementedError(
            "the kernels of selective oscillators cannot be differentiated twice "
            "(create_graph=True): set IREVRNN_BACKEND=python, which runs the reference"
        )
    *tensors, batch_sizes, resets = ctx.saved_tensors
    out, saved, h_0, c_0, *turns = tensors
    z, h, c, *of_turns = torch.ops.irevrnn.selective_scan_backward(
        *arriving[:3], out, saved, h_0, c_0, turns, batch_sizes, *ctx.numbers, resets
    )
    return z, h, c, of_turns, None, None, None, None
