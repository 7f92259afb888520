"""The gated linear unit at the end of a block, and the residual connection around it, in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irevrnn.backend import choose_backend
from irevrnn.ops import eager_float32


def gate(v: Tensor, x: Tensor | None = None) -> Tensor:
    """Return ``F.glu(v) + x``, in a third of PyTorch's time on the CPU (Dauphin et al., 2017).

    Args:
        v: (..., 2 * width).
        x: (..., width), or None to add nothing.
    """
    tensors = (v,) if x is None else (v, x)
    if eager_float32(*tensors) and choose_backend("cpu", torch.float32) == "vector":
        return _Gate.apply(v, x)
    y = F.glu(v)
    return y if x is None else y + x


class _Gate(torch.autograd.Function):
    """:func:`gate` by the compiled kernel; v alone is saved."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, x: Tensor | None) -> Tensor:
        ctx.save_for_backward(v)
        return torch.ops.irevrnn.gate(v, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (v,) = ctx.saved_tensors
        grad_v, grad = None, grad.contiguous()  # once: that of x goes on to the block below
        if ctx.needs_input_grad[0] and torch.is_grad_enabled():  # a second derivative may follow
            a, g = v.chunk(2, -1)
            opened = g.sigmoid()
            grad_v = torch.cat([grad * opened, grad * a * opened * (1 - opened)], -1)
        elif ctx.needs_input_grad[0]:
            grad_v = torch.ops.irevrnn.gate_backward(grad, v)
        return grad_v, grad if ctx.needs_input_grad[1] else None
