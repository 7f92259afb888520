"""Clip recurrent weights, and project the couplings of linear oscillators to be stable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from irevrnn.modules.checks import check_number
from irevrnn.recurrences.oscillator import Weights
from irevrnn.strategies.rules import RECURRENCE, computed_weight


class Recurrent(nn.Module):
    """A module with recurrent weights, which can be drawn anew and clipped."""

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset the statistics of ``norm="batch"``."""
        for each in reversed([*self.modules()][1:]):  # the innermost first
            if hasattr(each, "reset_parameters"):
                each.reset_parameters()  # type: ignore[operator]

    @torch.no_grad()
    def clip_recurrent_weights_(self, bound: float = 1.0, *, after: Optimizer | None = None) -> Any:
        """Clamp every recurrent weight to [-bound, bound], in place.

        Where the recurrence is linear with one coupling, unstable couplings are projected onto the
        stable region, where states cannot grow exponentially.

        Args:
            bound: largest absolute value, at least 0. IndRNN (Li et al., 2018) takes
                ``gamma ** (1 / T)``: over T steps, no state then grows more than ``gamma``-fold.
            after: an optimizer, for training: its ``step()`` then ends by clipping again. Copies of
                the optimizer do not clip.

        Returns:
            The module itself.

        Raises:
            ValueError: the bound is negative, or a weight is pruned or parametrized.
        """
        check_number("bound", bound, 0)
        for name, module in self.named_modules():
            # torch.compile wraps a block, and has its attributes.
            if not hasattr(module, "coupling_a") or hasattr(module, "_orig_mod"):
                continue
            u, a, b, *activations = Weights.of(module)
            oscillates = activations == ["identity", "identity"] and len(a) == 1
            if weight := computed_weight(module, RECURRENCE if oscillates else RECURRENCE[:1]):
                raise ValueError(
                    f"{name}{'.' if name else ''}{weight} cannot be clipped in place, since it is "
                    "pruned or parametrized; clip what it is computed from, or make it permanent "
                    "(torch.nn.utils.prune.remove)"
                )
            if isinstance(u, nn.Parameter):
                u.clamp_(-bound, bound)
            if oscillates:
                clip_couplings_(u, a[0], b[0])
        if after is not None:
            after.register_step_post_hook(lambda *_: self.clip_recurrent_weights_(bound))
        return self


@torch.no_grad()
def clip_couplings_(u: Tensor, a: Tensor, b: Tensor) -> None:
    """Project couplings of linear oscillators onto the stable region, in place.

    A step multiplies (h, c) by a matrix of determinant u and trace 1 + u + u a b. None of its
    eigenvalues exceeds 1 if -2 (1 + u) <= u a b <= 0 (Jury's criterion). Where u a b is positive,
    the smaller of a and b becomes 0; where it is too low, both shrink alike. All are (H,). Where u
    is outside of [-1, 1], states grow whatever the couplings are; below -1, u a b becomes 0.
    """
    # In half precision the product would be rounded coarsely, or overflow.
    wide_u, wide_a, wide_b = u.double(), a.double(), b.double()
    product = wide_u * wide_a * wide_b
    wrong_way = product > 0
    smaller = wide_a.abs() <= wide_b.abs()
    lowest = (-2 * (1 + wide_u)).clamp(max=0)
    # The couplings are rounded, and the recurrence rounds: neither must leave the bound.
    margin = 1 - max(1e-6, torch.finfo(a.dtype).eps)
    factor = torch.where(product < lowest, (lowest / product).sqrt() * margin, 1)
    a.copy_((wide_a * factor).masked_fill(wrong_way & smaller, 0))
    b.copy_((wide_b * factor).masked_fill(wrong_way & ~smaller, 0))
