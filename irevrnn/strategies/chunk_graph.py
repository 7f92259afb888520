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

    def foreign(self, known: frozenset[int]) -> Tensor | None:
        """Return a tensor that the chunk has a gradient for, and whose id is not among those known.

        Any gradient of such a tensor would be lost.
        """
        known = known | {id(state) for state in self.before}
        ahead = [y.grad_fn for y in (*self.after, self.top) if y.grad_fn is not None]
        met = set(ahead)
        while ahead:
            node = ahead.pop()
            leaf = getattr(node, "variable", None)  # of a node that accumulates gradients
            if leaf is not None and id(leaf) not in known:
                return leaf
            new = {following for following, _ in node.next_functions if following is not None} - met
            met |= new
            ahead += new
        return None

    def backpropagate(
        self,
        carried: Sequence[Tensor | None],
        grad_top: Tensor | None,
        leaves: list[Tensor],
        x: Tensor,
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None], Tensor | None]:
        """Backpropagate through the chunk, which frees its graph.

        Args:
            carried: gradients of ``after``, None where there is none.
            grad_top: gradient of ``top``, or None.
            leaves: the parameters.
            x: the chunk's input.

        Returns:
            Gradients of ``before``, of the parameters, and of ``x``, None where what has a gradient
            does not depend on them.
        """
        pairs = zip([*self.after, self.top], [*carried, grad_top], strict=True)
        used = [(y, g) for y, g in pairs if g is not None and y.requires_grad]
        wanted = [*self.before, *leaves, *([x] if x.requires_grad else [])]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if used:
            outputs, upstream = zip(*used, strict=True)
            found = torch.autograd.grad(outputs, wanted, upstream, allow_unused=True)
        states, end = len(self.before), len(self.before) + len(leaves)
        return found[:states], found[states:end], found[end] if x.requires_grad else None
