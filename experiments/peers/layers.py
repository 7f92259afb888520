"""The gated block of :class:`irevrnn.IRevBlock` around other recurrences."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from experiments.peers.selective import MinGRU, Selective
from irevrnn import Dropout
from irevrnn.modules.fused import block_output
from irevrnn.modules.norm import make_norm, normalize
from irevrnn.modules.projection import Projection
from irevrnn.recurrences.stateful import StatefulModule


def gated_block(
    kind: type[nn.Module], width: int, hidden_size: int, *,
    norm: str | None, bias: bool, dropout: float, **options: Any,
) -> GatedBlock:  # fmt: skip
    """Build a gated block around a recurrence, which takes ``options``."""
    if kind is MinGRU:
        options["candidate_bias"] = bias
    features = hidden_size if issubclass(kind, Selective) else width  # the others project back
    return GatedBlock(width, kind(width, hidden_size, **options), features, norm, dropout, bias)


class GatedBlock(nn.Module):
    r"""The block of :class:`irevrnn.IRevBlock` around another recurrence.

    .. math:: y_t = x_t + \mathrm{dropout}(\mathrm{GLU}(W \, \mathrm{GELU}(h_t) + b))

    with h the recurrence over norm(x).

    Args:
        width: features of input and output.
        recurrence: ``forward(x, state) -> (y, state)``, with x (T, B, width).
        features: of its output.
        norm: None, "layer" or "batch".
        dropout: probability of dropping a feature, in all steps of a sequence.
        bias: whether the output projection has one.
    """

    def __init__(
        self, width: int, recurrence: nn.Module, features: int,
        norm: str | None = "layer", dropout: float = 0.0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.norm = make_norm(norm, width)
        self.recurrence = recurrence
        self.output_projection = Projection(features, 2 * width, bias=bias)
        self.dropout = Dropout(dropout)

    def as_recurrence(self, name: str) -> StatefulModule:
        """Return the block as a strategy runs it."""

        def after(x: Tensor, h: Tensor) -> Tensor:
            return x + self.dropout(block_output(self.output_projection, h, None))

        return StatefulModule(self.recurrence, name, partial(normalize, self.norm), after)
