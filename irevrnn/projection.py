"""The projection of a layer's input: ``nn.Linear``, by the faster of two matrix products.

PyTorch multiplies float32 matrices on the CPU with MKL. Two things cost a layer time there, of
which the projection is the larger part:

- MKL leaves the wide vectors (AVX-512) of AMD's processors unused. oneDNN, which PyTorch also
  brings, uses them and takes less than half the time.
- The product is written to memory that the system has just handed out. Where vectors are narrower
  and oneDNN gains little, MKL writes to where the product before was (``csrc/fresh.h``): a large
  one takes two thirds of the time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.ops import has_tangent, load_operators, transformed

#: Multiplications below which calling oneDNN costs more than it saves.
_WORTHWHILE = 2**23
#: Bytes of a result from which it is worth while to ask for memory of our own.
_LARGE = 2**20


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if not _faster(input, weight, bias):
            return F.linear(input, weight, bias)
        return _Linear.apply(input, weight, bias)


def _faster(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the product is one that PyTorch would give to MKL, and that is faster here."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed():
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.dim() > 1
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
        and all(t.device.type == "cpu" for t in tensors)
        and _large_enough(x, weight)
        and not torch.is_autocast_enabled("cpu")
        and not has_tangent(*tensors)
    )


def _large_enough(x: Tensor, weight: Tensor) -> bool:
    outputs, inputs = weight.shape
    if _by_onednn():
        return x.numel() * outputs >= _WORTHWHILE
    return x.numel() // max(1, inputs) * outputs * x.itemsize >= _LARGE and load_operators()


@cache
def _by_onednn() -> bool:
    # The operator is what PyTorch's own compiler calls.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``."""
    if _by_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    out = torch.ops.irevrnn.fresh(x, [*x.shape[:-1], len(weight)])
    rows, x_rows = out.flatten(0, -2), x.flatten(0, -2)
    if bias is None:
        torch.mm(x_rows, weight.t(), out=rows)
    else:
        torch.addmm(bias, x_rows, weight.t(), out=rows)
    return out


class _Linear(torch.autograd.Function):
    """``F.linear`` by :func:`_product`, which has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        product = F.linear if torch.is_grad_enabled() else _product
        return (
            product(grad, weight.t()) if for_x else None,
            # Here oneDNN would copy both transposes, which MKL reads as they are.
            rows.t() @ x_rows if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
