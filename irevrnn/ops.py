"""The registered operators ``torch.ops.irevrnn.scan`` and ``scan_backward``.

``csrc/`` holds their schema and their CPU kernels. Here are the shapes they return (fake tensors,
for ``torch.compile``) and the autograd formula that ties the two together.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from irevrnn.csrc import build


@cache
def load_operators() -> bool:
    """Build the C++ extension on first use and register everything; False if it cannot be built."""
    if not build.load():
        return False
    torch.library.register_fake("irevrnn::scan", _scan_fake)
    torch.library.register_fake("irevrnn::scan_backward", _scan_backward_fake)
    torch.library.register_autograd("irevrnn::scan", _backward, setup_context=_keep_for_backward)
    torch.library.register_autograd("irevrnn::scan_backward", _no_second_derivative)
    return True


def held_shape(
    z: Tensor, h_0: Tensor, batch_sizes: Tensor | None, couplings: int, interval: int
) -> tuple[int, ...]:
    """Shape of what the forward kernel holds beside its output.

    Args:
        z: (T, B, H), or (N, H) packed.
        h_0: (B, H).
        batch_sizes: (T,), sequences at each step of a packed z.
        couplings: R.
        interval: 0 keeps f(p) and f(c) of every coupling and step; K > 0 keeps c every K steps,
            except the first, which is the caller's c_0.
    """
    steps = z.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    if interval > 0:
        return (steps + interval - 1) // interval - 1, *h_0.shape
    if batch_sizes is None:
        return steps, 2 * couplings, *h_0.shape
    return 2 * couplings * z.shape[0], z.shape[1]


def _scan_fake(
    z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    out = z.new_empty(z.shape)
    held = z.new_empty(held_shape(z, h_0, batch_sizes, a.shape[0], interval))
    return out, z.new_empty(h_0.shape), z.new_empty(c_0.shape), held


def _scan_backward_fake(
    grad_out: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Tensor | None,
    out: Tensor, held: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(out.new_empty(x.shape) for x in (out, h_0, c_0, u, a, b))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, h_0, c_0, u, a, b, batch_sizes, *ctx.options = inputs
    out, _, _, held = output
    # z is not kept: its gradient is that of the pre-activation, whose slope follows from out.
    ctx.save_for_backward(out, held, h_0, c_0, u, a, b, batch_sizes)
    ctx.set_materialize_grads(False)  # an unused output costs no zero tensor of its size


def _backward(ctx: Any, *gradients_of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_out, grad_h_n, grad_c_n, _ = gradients_of_outputs
    gradients = torch.ops.irevrnn.scan_backward(
        grad_out, grad_h_n, grad_c_n, *ctx.saved_tensors, *ctx.options
    )
    return *gradients, None, None, None, None, None


def _no_second_derivative(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError(
        "the compiled scan has no second derivative; set IREVRNN_BACKEND=python and memory='store' "
        "to differentiate twice"
    )
