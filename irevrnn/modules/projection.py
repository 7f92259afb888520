"""The projection of a layer's input: ``nn.Linear``, faster for large float32 tensors on the CPU.

A third of its time may go into getting memory for a large product from the system. Here
:mod:`irevrnn.kernels.allocator` provides it, unless the process uses a caching allocator anyway.
On AMD's processors with AVX-512, whose wide vectors MKL leaves unused, oneDNN takes half the time.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.kernels.allocator import allocate, uses_caching_allocator
from irevrnn.kernels.observers import traced
from irevrnn.kernels.ops import eager_float32

#: Bytes of a result, or of the input's gradient, from which the allocator matters.
_LARGE = 2**23
#: Multiplications from which calling oneDNN costs less than it saves.
_MANY = 2**23


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)`` by what is fastest here."""
    # A comparison of sizes would hold for an exported program, too.
    if traced() or x.dim() < 2 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    numbers = x.shape[:-1].numel() * max(weight.shape)
    large = 4 * numbers >= _LARGE and not uses_caching_allocator()
    worthwhile = large or x.numel() * len(weight) >= _MANY and _prefers_onednn()
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if not worthwhile or not eager_float32(*tensors):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def _prefers_onednn() -> bool:
    return bool(torch.backends.mkldnn.enabled) and _mkl_leaves_vectors_unused()


@cache
def _mkl_leaves_vectors_unused() -> bool:
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    there, cpu = wide and torch.backends.mkldnn.is_available(), Path("/proc/cpuinfo")
    return there and cpu.is_file() and "AuthenticAMD" in cpu.read_text()


class _Linear(torch.autograd.Function):
    """``F.linear`` by oneDNN, or into allocated memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        if _prefers_onednn():  # by the operator that PyTorch's own compiler calls
            bias = None if bias is None else bias.contiguous()  # it would be read as if it were
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        out = allocate(x, [*x.shape[:-1], len(weight)])
        rows = x.flatten(0, -2)
        F.linear(rows, weight, bias, out=out.view(-1, len(weight)))  # type: ignore[call-arg]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        batched = torch._C._functorch.is_legacy_batchedtensor(grad)  # is_grads_batched=True
        multiply = F.linear if batched else linear
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            multiply(grad, weight.t(), None) if of_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
