"""For strategies that are differentiated once, in reverse: the errors if more is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from irevrnn.ops import has_tangent, transformed

_INSTEAD = "memory='store' and memory='recompute' can"


def once_differentiable(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Make differentiating the gradients of ``backward`` an error that names the strategy.

    PyTorch's decorator of this name notices only upstream gradients that require a gradient.

    Args:
        backward: of an ``autograd.Function``; ``ctx.stack.strategy`` names its strategy.
    """

    @wraps(backward)
    def wrapper(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            gradients = backward(ctx, *upstream)
        if not torch.is_grad_enabled():  # no create_graph=True
            return gradients
        return tuple(
            g if g is None else _Final.apply(g.requires_grad_(), ctx.stack.strategy)
            for g in gradients
        )

    return wrapper


class _Final(torch.autograd.Function):
    """The identity, without a gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, strategy: str) -> Tensor:
        ctx.strategy = strategy
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        raise RuntimeError(f"memory={ctx.strategy!r} cannot be differentiated twice; {_INSTEAD}")


def check_reverse_mode(strategy: str, *tensors: Tensor | None) -> None:
    """Refuse the transforms of ``torch.func`` and forward-mode differentiation.

    Raises:
        NotImplementedError: one of them is at work.
    """
    if transformed():
        raise NotImplementedError(
            f"memory={strategy!r} cannot be transformed by torch.func; {_INSTEAD}"
        )
    if has_tangent(*tensors):
        raise NotImplementedError(f"memory={strategy!r} has no forward-mode derivative (jvp)")
