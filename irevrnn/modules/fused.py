"""Decide where a compiled operator gives what calling modules one by one would, but faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from irevrnn.backend import choose_backend
from irevrnn.modules.norm import LayerNorm
from irevrnn.modules.projection import Projection, prefers_onednn
from irevrnn.observers import sees_modules
from irevrnn.ops import eager_float32


def can_fuse(tensors: tuple[Any, ...], *modules: Any) -> bool:
    """Return whether a compiled operator computes what the modules would.

    It takes plain float32 tensors on the CPU, outside autocast and transforms, and modules whose
    call does nothing but to compute with their parameters.

    Args:
        tensors: what goes in beside the parameters of the modules, first what has the shape of the
            projection's input.
        modules: the last is the projection: a :class:`Projection`, or what a user has put there.
    """
    projection = modules[-1]
    if type(projection) is not Projection or has_hooks(*modules):
        return False
    weight = projection._parameters.get("weight")  # quicker than the attribute
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    if weight is None or not eager_float32(*tensors, *parameters):
        return False
    # The operators multiply by MKL, which has no wide vectors on AMD's processors.
    if torch.is_autocast_enabled("cpu") or prefers_onednn(tensors[0], weight):
        return False
    return choose_backend("cpu", torch.float32) == "vector"


def norm_arguments(norm: Any, features: int) -> tuple[Any, ...] | None:
    """Return what an operator takes for a norm: weight, bias, eps, and whether there is one.

    Returns:
        None for what is neither an ``nn.LayerNorm`` over all features nor an ``nn.Identity``.
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
