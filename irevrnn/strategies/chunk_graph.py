"""The graph of a chunk that was computed again, and the backward pass through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkGraph:
    """A chunk with its graph.

    Attributes:
        before: h and c of every block where the chunk begins; leaves.
        after: the same where the chunk ends.
        top: the output of the stack: all steps of the chunk, or a last one.
    """

    before: list[Tensor]
    after: list[Tensor]
    top: Tensor

    def backpropagate(
        self,
        carried: Sequence[Tensor],
        grad_top: Tensor | None,
        flat: list[Tensor],
        x: Tensor,
    ) -> tuple[list[Tensor], Sequence[Tensor], Tensor | None]:
        """Backpropagate through the chunk, which frees its graph.

        Args:
            carried: gradients of ``after``.
            grad_top: gradient of ``top``, or None.
            flat: the parameters.
            x: the chunk's input.

        Returns:
            Gradients of ``before``, of the parameters, and of ``x`` if it requires one.
        """
        pairs = zip([*self.after, self.top], [*carried, grad_top], strict=True)
        outputs, upstream = zip(*((y, g) for y, g in pairs if g is not None), strict=True)
        gradients = torch.autograd.grad(
            outputs,
            [*self.before, *flat, *([x] if x.requires_grad else [])],
            upstream,
            allow_unused=True,
            materialize_grads=True,
        )
        states, end = len(self.before), len(self.before) + len(flat)
        grad_x = gradients[end] if x.requires_grad else None
        return list(gradients[:states]), gradients[states:end], grad_x
