"""Dropout whose mask comes out the same when a step is computed again, whatever the strategy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.modules.arguments import check_probability
from irevrnn.modules.steps import current, passes


class Dropout(nn.Module):
    """Drop features of each step, for use in a :class:`irevrnn.Block` or between blocks.

    Inside a stack the mask is drawn once for each forward pass of the stack, or is a function of a
    seed and of the step if it is not tied. So it is the same when a chunk of steps is computed
    again, and the same under every strategy. ``nn.Dropout`` is replayed from the generator's state
    instead: right as well, but only if no other thread draws numbers, and different under each
    strategy.

    Args:
        p: probability of dropping a feature.
        tied: whether all steps of a sequence share one mask (variational dropout; Gal and
            Ghahramani, 2016).

    Shape:
        - input, output: (T, B, features), or (N, features) packed inside a stack. Outside of one,
          the first dimension of three or more is time.
    """

    def __init__(self, p: float = 0.5, tied: bool = True) -> None:
        super().__init__()
        check_probability("p", p)
        self.p, self.tied = float(p), tied

    @property
    def active(self) -> bool:
        """Whether anything is dropped."""
        return self.training and self.p > 0

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with features dropped, in training."""
        if not self.active:
            return input
        if torch.compiler.is_compiling() and passes.running:
            from irevrnn.compiling import run_uncompiled

            dropped: Tensor = run_uncompiled(self.forward, input)  # the stack knows the mask
            return dropped
        steps = None if torch.compiler.is_compiling() else current.steps
        if steps is not None:
            return input * steps.mask(input, self.p, self.tied)
        shape = input.shape[1:] if self.tied and input.dim() > 2 else input.shape
        return input * F.dropout(torch.ones(shape, dtype=input.dtype, device=input.device), self.p)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"p={self.p}, tied={self.tied}"
