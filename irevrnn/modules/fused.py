"""Compiled operators in place of modules: where they may run, and those of a gated block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.observers import sees_modules
from irevrnn.kernels.ops import eager_float32
from irevrnn.modules.norm import LayerNorm, normalize
from irevrnn.modules.projection import Projection, linear


def can_fuse(tensors: tuple[Any, ...], *modules: Any) -> bool:
    """Return whether a compiled operator computes what the modules would.

    It takes plain float32 tensors on the CPU, outside autocast and transforms, and modules whose
    call does nothing but to compute with their parameters. The last one is the projection: a
    :class:`Projection`, or what a user has put there. ``tensors`` go in beside the parameters.
    """
    projection = modules[-1]
    if type(projection) is not Projection or has_hooks(*modules):
        return False
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    if "weight" not in projection._parameters or not eager_float32(*tensors, *parameters):
        return False
    plain = not torch.is_autocast_enabled("cpu")
    return plain and choose_backend("cpu", torch.float32) == "vector"


def norm_arguments(norm: Any, features: int) -> tuple[Any, ...] | None:
    """Return what an operator takes for a norm: weight, bias, eps, and whether there is one.

    It takes an ``nn.LayerNorm`` over all features, or an ``nn.Identity``; None for any other.
    """
    if type(norm) is nn.Identity:
        return None, None, 0.0, False
    if type(norm) in (LayerNorm, nn.LayerNorm) and norm.normalized_shape == (features,):
        return norm.weight, norm.bias, norm.eps, True
    return None


def has_hooks(*modules: Any) -> bool:
    """Return whether calling one of the modules runs more than the forward pass of its class."""
    if sees_modules():
        return True
    for module in modules:  # a function for each, or any(), would take as long as the rest
        own = module.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "forward" in own
        ):
            return True
    return False


def block_input(norm: nn.Module, projection: nn.Module, scale: Tensor, x: Tensor) -> Tensor:
    """Return ``scale * projection(norm(x))`` for a scale (H,) and x (..., width)."""
    y = normalize(norm, x)
    # Under autocast, what sums over steps stays in full precision.
    if type(projection) is not Projection or has_hooks(projection):
        return projection(y).to(scale.dtype) * scale
    bias = None if projection.bias is None else projection.bias * scale
    return linear(y, projection.weight * scale.unsqueeze(1), bias).to(scale.dtype)


def block_output(projection: nn.Module, h: Tensor, x: Tensor | None) -> Tensor:
    """Return ``glu(projection(gelu(h))) + x`` for h (..., H) and x (..., width), or None."""
    if can_fuse((h,) if x is None else (h, x), projection):
        return torch.ops.irevrnn.block_output.default(h, projection.weight, projection.bias, x)
    y = F.glu(projection(F.gelu(h)))
    return y if x is None else x + y
