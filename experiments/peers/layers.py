"""Other recurrences as modules of :class:`irevrnn.IRevStack`: plain layers and gated blocks."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from irevrnn import Dropout
from irevrnn.modules.fused import block_output
from irevrnn.modules.norm import make_norm, normalize
from irevrnn.modules.projection import Projection
from irevrnn.recurrences.stateful import StatefulModule


class PlainLayer(nn.Module):
    """A recurrence, then norm and dropout.

    Args:
        recurrence: ``forward(x, state) -> (y, state)``, with x (T, B, in).
        features: of its output.
        norm: None, "layer" or "batch".
        dropout: probability of dropping a feature, in all steps of a sequence.
    """

    def __init__(
        self, recurrence: nn.Module, features: int, norm: str | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.norm = make_norm(norm, features)
        self.dropout = Dropout(dropout)

    def as_recurrence(self, name: str) -> StatefulModule:
        """Return the layer as a strategy runs it."""

        def after(_: Tensor, h: Tensor) -> Tensor:
            return self.dropout(normalize(self.norm, h))

        return StatefulModule(self.recurrence, name, after=after)


class GatedBlock(nn.Module):
    r"""The block of :class:`irevrnn.IRevBlock` around another recurrence.

    .. math:: y_t = x_t + \mathrm{dropout}(\mathrm{GLU}(W \, \mathrm{GELU}(h_t) + b))

    with h the recurrence over norm(x).

    Args:
        width: features of input and output.
        recurrence, features, norm, dropout: as for :class:`PlainLayer`.
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
