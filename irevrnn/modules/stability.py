"""Keep the states of linear oscillators from growing."""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence


def is_oscillator(recurrence: Recurrence) -> bool:
    """Return whether a recurrence is linear, with one coupling."""
    linear = recurrence.activation == recurrence.coupling_activation == "identity"
    return linear and len(recurrence.a) == 1


@torch.no_grad()
def clip_couplings_(u: Tensor, a: Tensor, b: Tensor) -> None:
    """Move couplings of linear oscillators to the nearest whose states do not grow, in place.

    A step multiplies (h, c) by a matrix of determinant u and trace 1 + u + u a b. None of its
    eigenvalues exceeds 1 if -2 (1 + u) <= u a b <= 0 (Jury's criterion): elsewhere states grow
    exponentially, however much is forgotten. Where u a b is positive, the smaller of a and b
    becomes 0; where it is too low, both shrink alike.

    Args:
        u: recurrent weights (H,), in [-1, 1].
        a, b: coupling weights (H,).
    """
    product = u * a * b
    wrong_way = product > 0
    a.masked_fill_(wrong_way & (a.abs() <= b.abs()), 0)
    b.masked_fill_(wrong_way & (a.abs() > b.abs()), 0)
    lowest = -2 * (1 + u)
    # Rounding must not leave the product beyond the bound.
    factor = torch.where(product < lowest, (lowest / product).sqrt() * (1 - 1e-6), 1)
    a.mul_(factor)
    b.mul_(factor)
