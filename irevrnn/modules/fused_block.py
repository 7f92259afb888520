"""Compute what stands around the recurrence of a gated block, by compiled operators if possible."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as nn_module

from irevrnn.backend import choose_backend
from irevrnn.modules.layer import normalize
from irevrnn.modules.projection import Projection, linear, prefers_onednn
from irevrnn.ops import eager_float32


def block_input(norm: nn.Module, projection: nn.Module, scale: Tensor, x: Tensor) -> Tensor:
    """Return ``scale * projection(norm(x))``.

    Args:
        norm: ``nn.LayerNorm`` or ``nn.Identity`` for the compiled operator, or any other.
        projection: :class:`Projection`, or what a user has put in its place.
        scale: (H,).
        x: (..., width).
    """
    normed = type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 1
    if (normed or type(norm) is nn.Identity) and _fused(x, scale, norm, projection):
        return torch.ops.irevrnn.block_input(
            x, norm.weight if normed else None, norm.bias if normed else None,
            norm.eps if normed else 0.0, normed, projection.weight, projection.bias, scale,
        )  # fmt: skip
    y = normalize(norm, x)
    # Under autocast, what sums over steps stays in full precision.
    if type(projection) is not Projection or _has_hooks(projection):
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
    if _fused(h, h if x is None else x, projection):
        return torch.ops.irevrnn.block_output(h, projection.weight, projection.bias, x)
    y = F.glu(projection(F.gelu(h)))
    return y if x is None else x + y


def _fused(x: Tensor, other: Tensor, *modules: nn.Module) -> bool:
    """Return whether the compiled operators give what calling the modules would."""
    if type(modules[-1]) is not Projection or torch.is_autocast_enabled("cpu"):
        return False
    if any(_has_hooks(module) for module in modules):
        return False
    parameters = [p for module in modules for p in _parameters(module)]
    # The operators multiply by MKL, which has no wide vectors on AMD's processors.
    if not eager_float32(x, other, *parameters) or prefers_onednn(x, modules[-1].weight):
        return False
    return choose_backend("cpu", torch.float32) == "vector"


def _parameters(module: nn.Module) -> Iterator[Tensor]:
    return (p for p in module._parameters.values() if p is not None)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn_module._global_forward_hooks
        or nn_module._global_forward_pre_hooks
        or nn_module._global_backward_hooks
        or nn_module._global_backward_pre_hooks
    )
