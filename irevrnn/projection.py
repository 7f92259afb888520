"""The projection of a layer's input: ``nn.Linear``, by the faster of two matrix products.

PyTorch multiplies float32 matrices on the CPU with MKL, which leaves the wide vectors of AMD's
processors unused; oneDNN, which it also brings, uses them. There it takes less than half the time
(an EPYC with AVX-512; a tenth less with AVX2), and the projection is most of what a layer does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.ops import has_tangent, transformed

#: Multiplications below which calling oneDNN costs more than it saves.
_WORTHWHILE = 2**23


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not _for_onednn(input, weight, bias):
            return F.linear(input, weight, bias)
        return _Linear.apply(input, weight, bias)


def _for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the product is one that PyTorch would give to MKL, and not to a transform of its."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed():
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        _available()
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
        and all(t.device.type == "cpu" for t in tensors)
        and x.numel() * weight.shape[0] >= _WORTHWHILE
        and not torch.is_autocast_enabled("cpu")
        and not has_tangent(*tensors)
    )


def _available() -> bool:
    # The operator is what PyTorch's own compiler calls.
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """``F.linear`` by oneDNN, which has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        # oneDNN's product cannot be differentiated in its turn.
        product = F.linear if torch.is_grad_enabled() else _product
        return (
            product(grad, weight.t()) if for_x else None,
            # Here oneDNN would copy both transposes, which MKL reads as they are.
            rows.t() @ x_rows if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
