"""Find out whether a module treats each step by itself: :func:`check_stepwise`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from irevrnn.modules.dropout import Dropout
from irevrnn.strategies.stack import is_block


@torch.no_grad()
def check_stepwise(module: nn.Module, input: Tensor, tolerance: float = 1e-4) -> None:
    """Raise a ValueError unless a module treats each step by itself and keeps no state.

    Call this once, in a test, for a module of your own that goes into a :class:`irevrnn.IRevStack`.
    The module runs on all steps, on pieces of them and on packed rows, in its present mode (train
    or eval) but without dropout; a recurrent block runs its ``project`` and its ``output``.

    Args:
        module: a block, or any module that maps (..., in) to (..., out).
        input: (T, B, in) with T at least 3, and no dimension of size 0.
        tolerance: largest difference, relative to the largest output. One within the tolerance
            still matters to ``reversible``, which then raises a :class:`irevrnn.ReversalError`.

    Raises:
        ValueError: the results differ, or have the wrong shape. It says in which method.
    """
    if input.dim() != 3 or len(input) < 3 or not input.numel():
        wanted = "(T, B, in), T at least 3 and nothing of size 0"
        raise ValueError(f"input must be {wanted}; got shape {tuple(input.shape)}")
    name, module = type(module).__name__, copy.deepcopy(module)
    for each in module.modules():
        if isinstance(each, Dropout | _DropoutNd):
            each.p = 0.0
    if not is_block(module):
        _compare(f"{name}.forward", module, (input,), tolerance)
        return
    block: Any = module
    z = _compare(f"{name}.project", block.project, (input,), tolerance)
    _compare(f"{name}.output", block.output, (input, torch.tanh(z)), tolerance)


def _compare(
    name: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], tolerance: float
) -> Tensor:
    """Compare a function of all steps with the same function of pieces, and of packed rows."""

    def run(*parts: Tensor) -> Tensor:  # which may work in place
        return function(*(x.clone() for x in parts))

    whole, steps = run(*inputs), len(inputs[0])
    if whole.dim() != 3 or whole.shape[:2] != inputs[0].shape[:2]:
        shapes = f"{tuple(inputs[0].shape)} to {tuple(whole.shape)}"
        raise ValueError(f"{name} must map (T, B, in) to (T, B, out); got {shapes}")
    if not whole.isfinite().all():
        raise ValueError(f"{name} must give finite numbers for this input, to be compared")
    bound = tolerance * whole.abs().max().clamp(min=1e-30)
    for length in (steps, steps - 1, steps // 2, 1):
        pieces = zip(*(x.split(length) for x in inputs), strict=True)
        parts = torch.cat([run(*piece) for piece in pieces])
        if not ((parts - whole).abs() <= bound).all():  # NaN, too
            random = "draws random numbers, so call eval() first"
            reason = f"keeps a state, or {random if length == steps else 'mixes steps'}"
            raise ValueError(
                f"{name} does not treat each step by itself: run in pieces of {length} of {steps} "
                f"steps, it gives other results; it {reason}"
            )
    reason = "gives something else, so it mixes sequences, or takes a dimension for another"
    try:
        rows = run(*(x.flatten(0, 1) for x in inputs))
        same = bool(((rows.view_as(whole) - whole).abs() <= bound).all())
    except Exception as error:
        same, reason = False, f"raised {type(error).__name__}: {error}"
    if not same:
        raise ValueError(f"{name} must take packed steps, (N, in), too; with these, it {reason}")
    return whole
