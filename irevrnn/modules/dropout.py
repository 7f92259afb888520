"""Dropout with one mask under every strategy, also when a step is computed again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irevrnn.modules.checks import check_number
from irevrnn.strategies.dropout_masks import current, draw_mask, passes


class Dropout(nn.Module):
    """Drop features of each step, for use in a :class:`irevrnn.Block` or between blocks.

    All steps of a sequence share one mask (variational dropout; Gal and Ghahramani, 2016), drawn
    once for each forward pass of a stack: the same when a chunk of steps is computed again, and
    under every strategy. ``nn.Dropout``, which drops other features in each step, is replayed from
    the generator's state. Under ``torch.utils.checkpoint`` in a block, use ``nn.Dropout``.

    Args:
        p: probability of dropping a feature, in [0, 1).

    Shape:
        - input, output: (T, B, ...), or (N, ...) packed inside a stack. Outside of a stack, the
          first dimension of three or more is taken for time: it must not be the batch.
    """

    _in_stack = False  # when it last ran

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_number("p", p, 0, 1)
        self.p = float(p)

    @property
    def active(self) -> bool:
        """Whether anything is dropped."""
        return self.training and self.p > 0

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with features dropped, in training."""
        if not self.active:
            return input
        if not torch.compiler.is_compiling():
            if current.seen is not None:
                self._in_stack = True
                return input * current.seen.mask(input, self.p)
            if self._in_stack and torch._C._current_graph_task_id() != -1:
                raise RuntimeError(
                    "irevrnn.Dropout ran inside a stack, and something else computes it again in "
                    "the backward pass, such as torch.utils.checkpoint inside of a block: it would "
                    "drop other features; use nn.Dropout there"
                )
            self._in_stack = False
        elif passes.running:  # the stack knows the mask
            from irevrnn.kernels.compiling import run_uncompiled

            dropped: Tensor = run_uncompiled(self.forward, input)
            return dropped
        shape = input.shape[1:] if input.dim() > 2 else input.shape
        return input * draw_mask(input, shape, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
