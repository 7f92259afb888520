"""The projection of a layer's input: ``nn.Linear``, faster for large float32 tensors on the CPU.

The projection is the larger part of a layer's time, and PyTorch loses some of it:

- MKL leaves the wide vectors (AVX-512) of AMD's processors unused. oneDNN, which PyTorch also
  brings, uses them and takes a tenth to a half less.
- The product is written to memory that the system has just handed out, which takes a third of the
  time where it is large. Here :mod:`irevrnn.allocator` provides it, unless the process uses a
  caching allocator anyway.

With 256 features and more the results of oneDNN and MKL may differ in the last bits.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.allocator import allocate, uses_caching_allocator
from irevrnn.observers import traced
from irevrnn.ops import eager_float32

#: Multiplications below which calling oneDNN costs more than it saves.
_WORTHWHILE = 2**23
#: Bytes of a result from which the allocator matters.
_LARGE = 2**23
#: Rows that are multiplied at a time, for each thread, where the product is copied.
_ROWS = 2048


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)`` by what is fastest here."""
    if not _worthwhile(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def prefers_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN multiplies faster than PyTorch's own product."""
    return x.numel() * weight.size(0) >= _WORTHWHILE and _onednn_is_faster()


def _worthwhile(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether :class:`_Linear` is faster than PyTorch's own product."""
    if traced():  # a comparison of sizes would hold for the exported program, too
        return False
    rows = x.numel() // max(1, x.shape[-1]) if x.dim() > 1 else 0
    multiplications, large = rows * weight.numel(), _large(rows, max(weight.shape))
    if not large and multiplications < _WORTHWHILE:  # in a stream, the rest would take longer
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_autocast_enabled("cpu") or not eager_float32(*tensors):
        return False
    return large or _onednn_is_faster()


def _large(rows: int, columns: int) -> bool:
    return rows * columns * 4 >= _LARGE and not uses_caching_allocator()


def _onednn_is_faster() -> bool:
    return bool(torch.backends.mkldnn.enabled) and _onednn_is_faster_here()


@cache
def _onednn_is_faster_here() -> bool:
    # PyTorch's own compiler calls this operator.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return there and wide and "AuthenticAMD" in _processor()


def _processor() -> str:
    """Return what the system tells of the processor, including its vendor."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


class _Linear(torch.autograd.Function):
    """``F.linear`` by :func:`_multiply`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        batched = torch._C._functorch.is_legacy_batchedtensor(grad)  # is_grads_batched=True
        multiply = F.linear if torch.is_grad_enabled() or batched else _multiply
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            multiply(grad, weight.t(), None) if of_x else None,
            # Here oneDNN would copy both transposes, which MKL reads as they are.
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias``; but for very few rows, each is the same among any others."""
    rows, onednn = x.flatten(0, -2), _onednn_is_faster()
    if not _large(len(rows), len(weight)):
        return _by_onednn(x, weight, bias) if onednn else F.linear(x, weight, bias)
    out = allocate(x, [*x.shape[:-1], len(weight)])
    target = out.view(len(rows), len(weight))
    if onednn:  # it allocates its results itself, so they are copied while they are in the cache
        for x_part, out_part in zip(_parts(rows), _parts(target), strict=True):
            out_part.copy_(_by_onednn(x_part, weight, bias))
    elif bias is None:
        torch.mm(rows, weight.t(), out=target)
    else:
        torch.addmm(bias, rows, weight.t(), out=target)
    return out


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.contiguous()  # it would be read as if it were
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    """Split rows into parts of nearly equal size: very small ones are multiplied differently."""
    return rows.tensor_split(max(1, -(-len(rows) // (_ROWS * torch.get_num_threads()))))
