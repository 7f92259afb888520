"""Keep recurrent weights in range, and the states of linear oscillators from growing."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from irevrnn.modules.arguments import check_number
from irevrnn.modules.recurrence import Recurrence
from irevrnn.strategies.rules import RECURRENCE, computed_weight


class Clipped:
    """Modules with recurrent weights that can be clipped."""

    def _clipped(self) -> list[tuple[str, nn.Module]]:
        """Return the modules whose recurrence is clipped, with what an error calls each of them."""
        return [(type(self).__name__, self)]  # type: ignore[list-item]

    def clip_recurrent_weights_(self, bound: float = 1.0, *, after: Optimizer | None = None) -> Any:
        """Clamp every recurrent weight to [-bound, bound], in place.

        Where the recurrence is linear with one coupling, couplings with which states would grow
        are moved to the nearest with which they do not
        (:func:`irevrnn.modules.stability.clip_couplings_`).

        IndRNN (Li et al., 2018) bounds abs(u) by ``gamma ** (1 / T)`` so that a state cannot grow
        more than ``gamma``-fold over T steps.

        Args:
            bound: largest absolute value, at least 0.
            after: an optimizer, for training: its ``step()`` then ends by clipping again. It holds
                only weak references to the blocks, and copies of it do not clip.

        Returns:
            The module itself.

        Raises:
            ValueError: the bound is negative, or a weight is pruned or parametrized.
            TypeError: the bound is no number, or ``after`` no optimizer.

        Example::

            >>> optimizer = torch.optim.Adam(model.parameters())
            >>> model = model.clip_recurrent_weights_(after=optimizer)
        """
        if after is not None and not isinstance(after, Optimizer):
            given = type(after).__name__
            raise TypeError(f"after must be a torch.optim.Optimizer; got {given}")
        for label, block in self._clipped():
            clip_recurrence_(block, label, bound)
        if after is not None:
            blocks = [(label, weakref.ref(block)) for label, block in self._clipped()]

            def clip(*_: Any) -> None:
                for label, reference in blocks:
                    if (block := reference()) is not None:
                        clip_recurrence_(block, label, bound)

            after.register_step_post_hook(clip)
        return self


@torch.no_grad()
def clip_recurrence_(block: nn.Module, label: str, bound: float) -> None:
    """Clamp recurrent weights to [-bound, bound], and move couplings of linear oscillators.

    Args:
        block: with a recurrence.
        label: what an error calls it.
        bound: largest absolute value, at least 0.

    Raises:
        ValueError: the bound is negative, or a weight is pruned or parametrized.
        TypeError: the bound is no number.
    """
    check_number("bound", bound)
    if not bound >= 0:
        raise ValueError(f"bound must be at least 0; got {bound}")
    recurrence = Recurrence.of(block)
    oscillates = is_oscillator(recurrence)
    owner = getattr(block, "_orig_mod", block)  # torch.compile wraps a module
    if name := computed_weight(owner, RECURRENCE if oscillates else RECURRENCE[:1]):
        raise ValueError(
            f"{name} of {label} cannot be clipped in place, since it is pruned or "
            "parametrized; clip what it is computed from, or make it permanent "
            "(torch.nn.utils.prune.remove)"
        )
    if isinstance(recurrence.u, nn.Parameter):
        recurrence.u.clamp_(-bound, bound)
    if oscillates:
        clip_couplings_(recurrence.u, recurrence.a[0], recurrence.b[0])


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
    becomes 0; where it is too low, both shrink alike. Where u is outside of [-1, 1], states grow
    whatever the couplings are; below -1, u a b becomes 0.

    Args:
        u: recurrent weights (H,).
        a, b: coupling weights (H,).
    """
    # In half precision the product would be rounded coarsely, or overflow.
    wide_u, wide_a, wide_b = u.double(), a.double(), b.double()
    product = wide_u * wide_a * wide_b
    wrong_way = product > 0
    smaller = wide_a.abs() <= wide_b.abs()
    lowest = (-2 * (1 + wide_u)).clamp(max=0)
    # The recurrence itself rounds, in float32: it must not leave the bound, either.
    factor = torch.where(product < lowest, (lowest / product).sqrt() * (1 - 1e-6), 1)
    a.copy_(_towards_zero((wide_a * factor).masked_fill(wrong_way & smaller, 0), a.dtype))
    b.copy_(_towards_zero((wide_b * factor).masked_fill(wrong_way & ~smaller, 0), b.dtype))


def _towards_zero(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in another dtype, nowhere larger in absolute value."""
    nearest, info = x.to(dtype), torch.finfo(dtype)
    step = info.eps * (x.abs() + info.smallest_normal)  # torch.nextafter lacks float16 on a GPU
    return torch.where(nearest.double().abs() > x.abs(), (x - x.sign() * step).to(dtype), nearest)
