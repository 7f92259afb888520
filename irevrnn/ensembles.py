"""An ensemble of scans as one scan: the rule of ``torch.func.vmap`` for the operators.

Units do not depend on one another within a layer, so E scans over H units are one scan over E * H
units. Every tensor of the operators has the units as its last dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def run_folded(
    operator: Callable[..., tuple[Tensor, ...]],
    members: int,
    in_dims: Sequence[int | None],
    arguments: Sequence[Any],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Run an operator once for all members of an ensemble.

    Args:
        operator: takes and returns tensors whose last dimension is that of the units, beside
            ``batch_sizes`` and options.
        members: E.
        in_dims: for each argument, the dimension of the ensemble, or None if all members share it.
        arguments: of the operator.

    Returns:
        The operator's results with a dimension for the ensemble, and where each has it.
    """
    folded = [_fold(x, members, dim) for x, dim in zip(arguments, in_dims, strict=True)]
    results = tuple(y.unflatten(-1, (members, -1)) for y in operator(*folded))
    return results, tuple(y.dim() - 2 for y in results)


def _fold(x: Any, members: int, dim: int | None) -> Any:
    """(..., E, ..., H), or (..., H) for all members, to (..., E * H)."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return x  # batch_sizes and options, which all members share
    if dim is None:
        return x.unsqueeze(-2).expand(*x.shape[:-1], members, x.shape[-1]).flatten(-2)
    return x.movedim(dim, -2).flatten(-2)
