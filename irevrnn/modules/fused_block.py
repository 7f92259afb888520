"""Compute what stands around the recurrence of a gated block, by compiled operators if possible."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.modules.fused import can_fuse, has_hooks, norm_arguments
from irevrnn.modules.norm import normalize
from irevrnn.modules.projection import Projection, linear


def block_input(norm: nn.Module, projection: nn.Module, scale: Tensor, x: Tensor) -> Tensor:
    """Return ``scale * projection(norm(x))``.

    Args:
        norm: ``nn.LayerNorm`` or ``nn.Identity`` for the compiled operator, or any other.
        projection: :class:`Projection`, or what a user has put in its place.
        scale: (H,).
        x: (..., width).
    """
    normed = norm_arguments(norm, x.shape[-1])
    if normed is not None and can_fuse((x, scale), norm, projection):
        weight, bias = projection.weight, projection.bias
        return torch.ops.irevrnn.block_input.default(x, *normed, weight, bias, scale)
    y = normalize(norm, x)
    # Under autocast, what sums over steps stays in full precision.
    if type(projection) is not Projection or has_hooks(projection):
        return projection(y).to(scale.dtype) * scale
    bias = None if projection.bias is None else projection.bias * scale
    return linear(y, projection.weight * scale.unsqueeze(1), bias).to(scale.dtype)


def block_output(projection: nn.Module, h: Tensor, x: Tensor | None) -> Tensor:
    """Return ``glu(projection(gelu(h))) + x``; add nothing if x is None.

    Args:
        projection: as for :func:`block_input`.
        h: (..., H).
        x: (..., width).
    """
    if can_fuse((h,) if x is None else (h, x), projection):
        return torch.ops.irevrnn.block_output.default(h, projection.weight, projection.bias, x)
    y = F.glu(projection(F.gelu(h)))
    return y if x is None else x + y
