"""The projection of a layer's input: ``nn.Linear`` for float32 on the CPU, which takes less time.

It is the larger part of a layer, and two things make it slow in PyTorch:

- It is MKL's, which leaves the wide vectors (AVX-512) of AMD's processors unused. oneDNN, which
  PyTorch also brings, uses them and takes a tenth to a half less.
- The product is written to memory that the system has just handed out, which takes a third of the
  time where it is large. Here it goes to where the product before was (``csrc/allocate.h``), unless
  the process keeps what it frees by itself. oneDNN cannot write there, so its results are copied,
  in pieces of some thousand rows, while they are in the cache. On the way back, the gradients of
  input, weight and bias take one piece after the other, which comes from memory once.

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
from irevrnn.ops import has_tangent, traced, transformed

#: Multiplications below which calling oneDNN costs more than it saves.
_WORTHWHILE = 2**23
#: Bytes of input or output from which pieces and memory of our own are worth the copies.
_LARGE = 2**23
#: Rows of a piece, for each thread: what the caches hold of all matrices together.
_ROWS = 2048


class Projection(nn.Linear):
    """``nn.Linear`` with the same parameters, results (but for rounding) and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        if not _worthwhile(input, self.weight, self.bias):
            return F.linear(input, self.weight, self.bias)
        return _Linear.apply(input, self.weight, self.bias)


def _worthwhile(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether :class:`_Linear` is faster than PyTorch's own product here."""
    if not _by_pytorch_with_mkl(x, weight, bias):
        return False
    multiplications = x.numel() * len(weight)
    return _by_pieces(x, weight) or (_onednn_is_faster() and multiplications >= _WORTHWHILE)


def _by_pytorch_with_mkl(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if traced() or transformed():
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.dim() > 1
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
        and all(t.device.type == "cpu" for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not has_tangent(*tensors)
    )


def _by_pieces(x: Tensor, weight: Tensor) -> bool:
    """Whether it goes to memory of our own."""
    outputs, inputs = weight.shape
    rows = x.numel() // max(1, inputs)
    return rows * max(inputs, outputs) * x.itemsize >= _LARGE and not uses_caching_allocator()


@cache
def _onednn_is_faster() -> bool:
    # The operator is what PyTorch's own compiler calls.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return there and wide and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system tells of the processor, its vendor among it."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()


class _Linear(torch.autograd.Function):
    """``F.linear`` by :func:`_product`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_pieces = _by_pieces(x, weight) and not torch.is_grad_enabled()
        gradients = _gradients_by_pieces if by_pieces else _gradients
        return gradients(grad, x, weight, ctx.needs_input_grad)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``."""
    if not _by_pieces(x, weight):
        return _multiply(x, weight, bias)
    out = allocate(x, [*x.shape[:-1], len(weight)])
    for x_rows, out_rows in zip(_pieces(x), _pieces(out), strict=True):
        _multiply_into(out_rows, x_rows, weight, bias)
    return out


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Those of input, weight and bias as far as needed, which can be differentiated once more."""
    multiply = F.linear if torch.is_grad_enabled() else _multiply
    rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
    return (
        multiply(grad, weight.t(), None) if needed[0] else None,
        # Here oneDNN would copy both transposes, which MKL reads as they are.
        rows.t() @ x_rows if needed[1] else None,
        rows.sum(0) if needed[2] else None,
    )


def _gradients_by_pieces(
    grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The same of one piece after the other, while it lies in the cache."""
    of_x = allocate(x, x.shape) if needed[0] else None
    of_weight = torch.zeros_like(weight) if needed[1] else None
    of_bias = weight.new_zeros(len(weight)) if needed[2] else None
    x_pieces, transposed = _pieces(x), weight.t()
    of_x_pieces = x_pieces if of_x is None else _pieces(of_x)
    for rows, x_rows, of_x_rows in zip(_pieces(grad), x_pieces, of_x_pieces, strict=True):
        if of_x is not None:
            _multiply_into(of_x_rows, rows, transposed, None)
        if of_weight is not None:
            of_weight.addmm_(rows.t(), x_rows)
        if of_bias is not None:
            of_bias += rows.sum(0)
    return of_x, of_weight, of_bias


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """The rows of ``x`` (..., features) in parts that are as large as each other, but for one."""
    rows = x.flatten(0, -2)
    count = -(-len(rows) // (_ROWS * torch.get_num_threads()))
    return rows.tensor_split(max(1, count))


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _onednn_is_faster():
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _multiply_into(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """The product of rows in ``out``. oneDNN hands out its result in memory of its own only."""
    if _onednn_is_faster():
        out.copy_(_multiply(x, weight, bias))
    elif bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)
