"""The projection of a layer's input: ``nn.Linear``, by the faster of two matrix products.

PyTorch multiplies float32 matrices on the CPU with MKL. Two things cost a layer time there, of
which the projection is the larger part:

- MKL leaves the wide vectors (AVX-512) of AMD's processors unused. oneDNN, which PyTorch also
  brings, uses them and takes a tenth to a half less.
- The product is written to memory that the system has just handed out, which takes a third of the
  time where it is large. MKL can be told to write to where the product before was
  (``csrc/fresh.h``), oneDNN cannot.

So oneDNN multiplies where vectors are wide and the C library keeps the memory of such products by
itself; else MKL writes to memory of our own. With 256 features and more their results may differ in
the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.ops import has_tangent, load_operators, transformed
from irevrnn.process import keeps_freed_memory

#: Multiplications below which calling oneDNN costs more than it saves.
_WORTHWHILE = 2**23
#: Bytes of a result from which it is worth while to ask for memory of our own.
_LARGE = 2**20
#: Larger blocks glibc never keeps when they are freed, unless it is told to.
_KEPT_BY_MALLOC = 2**25

#: (x, weight, bias) to ``x @ weight.T + bias``, without a gradient of its own.
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        product = _faster_product(input, self.weight, self.bias)
        if product is None:
            return F.linear(input, self.weight, self.bias)
        return _Linear.apply(product, input, self.weight, self.bias)


def _faster_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Product | None:
    """The product that is faster than the one that PyTorch would take, if one is."""
    if not _by_pytorch_with_mkl(x, weight, bias):
        return None
    outputs, inputs = weight.shape
    result_bytes = x.numel() // max(1, inputs) * outputs * x.itemsize
    kept_by_malloc = result_bytes <= _KEPT_BY_MALLOC or keeps_freed_memory()
    if _onednn_is_faster() and (kept_by_malloc or not load_operators()):
        return _by_onednn if x.numel() * outputs >= _WORTHWHILE else None
    return _by_mkl if result_bytes >= _LARGE and load_operators() else None


def _by_pytorch_with_mkl(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed():
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.dim() > 1
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
        and all(t.device.type == "cpu" for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not has_tangent(*tensors)
    )


@cache
def _onednn_is_faster() -> bool:
    # The operator is what PyTorch's own compiler calls.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _by_mkl(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.ops.irevrnn.fresh(x, [*x.shape[:-1], len(weight)])
    rows, x_rows = out.flatten(0, -2), x.flatten(0, -2)
    if bias is None:
        torch.mm(x_rows, weight.t(), out=rows)
    else:
        torch.addmm(bias, x_rows, weight.t(), out=rows)
    return out


class _Linear(torch.autograd.Function):
    """``F.linear`` by the faster product."""

    @staticmethod
    def forward(
        ctx: Any, product: Product, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        _, for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        return (
            None,
            _differentiable_product(grad, weight.t()) if for_x else None,
            # Here oneDNN would copy both transposes, which MKL reads as they are.
            rows.t() @ x_rows if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _differentiable_product(x: Tensor, weight: Tensor) -> Tensor:
    product = None if torch.is_grad_enabled() else _faster_product(x, weight, None)
    return (product or F.linear)(x, weight, None)
