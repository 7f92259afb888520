"""Memory for large results: where those of the step before lay, not pages just handed out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from irevrnn.backend import choose_backend
from irevrnn.ops import traced, transformed


def fresh(like: Tensor, shape: Sequence[int]) -> Tensor:
    """An uninitialised contiguous tensor, in memory of our own where the kernels are at hand.

    Blocks of that memory that tensors gave back wait for the next (``csrc/freed_blocks.h``).

    Args:
        like: of the same dtype and device.
        shape: of the tensor.
    """
    elsewhere = not like.is_cpu or traced() or transformed()
    if elsewhere or choose_backend("cpu", torch.float32) == "python":
        return like.new_empty(shape)
    return torch.ops.irevrnn.fresh(like, shape)


def fresh_like(x: Tensor) -> Tensor:
    """One of the shape and strides of ``x``: (T, B, features), or (B, T, features) transposed."""
    if x.is_contiguous():
        return fresh(x, x.shape)
    turned = x.transpose(0, 1)
    if turned.is_contiguous():
        return fresh(x, turned.shape).transpose(0, 1)
    return torch.empty_like(x)
