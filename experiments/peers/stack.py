"""Plain layers and gated blocks around a recurrence, and a stack of either."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from irevrnn import Dropout
from irevrnn.modules.fused_block import block_output
from irevrnn.modules.norm import make_norm, normalize
from irevrnn.modules.projection import Projection

#: Steps at which an output is wanted, as an index of the first dimension.
At = slice | Tensor
EVERY = slice(None)


class PlainLayer(nn.Module):
    """A recurrence, then norm and dropout.

    Args:
        recurrence: takes (T, B, in) to (T, B, features).
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

    def forward(self, x: Tensor, real: Tensor | None, at: At = EVERY) -> Tensor:
        """Return the layer's output at some steps, for ``real`` as in :func:`normalize_steps`."""
        return self.dropout(normalize_steps(self.norm, self.recurrence(x), real)[at])


class GatedBlock(nn.Module):
    r"""The block of :class:`irevrnn.IRevBlock` around another recurrence.

    .. math:: y_t = x_t + \mathrm{dropout}(\mathrm{GLU}(W \, \mathrm{GELU}(h_t) + b))

    with h the recurrence over norm(x).

    Args:
        width: features of input and output.
        recurrence: takes (T, B, width) to (T, B, features), or to some of these steps.
        features: of its output.
        norm, dropout: as for :class:`PlainLayer`.
        bias: whether the output projection has one.
    """

    def __init__(
        self, width: int, recurrence: nn.Module, features: int,
        norm: str | None = "layer", dropout: float = 0.0, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm = make_norm(norm, width)
        self.recurrence = recurrence
        self.output_projection = Projection(features, 2 * width, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor | None, at: At = EVERY) -> Tensor:
        """Return the block's output at some steps, for ``real`` as in :func:`normalize_steps`.

        Like the last one of our blocks, it does not compute what nobody reads.
        """
        h = self.recurrence(normalize_steps(self.norm, x, real), at)
        return x[at] + self.dropout(block_output(self.output_projection, h, None))


class Stack(nn.Module):
    """Layers or blocks on top of one another.

    Args:
        layers: :class:`PlainLayer` or :class:`GatedBlock`.
        features: of the output.
        embedding: a function of each step of the input, before the first of them.

    Shape:
        - input: (batch, seq, in)
        - lengths: (batch,) int64, steps of each sequence, if some are padded at their end
        - at: the steps whose output is wanted, all by default
        - output: (batch, seq, features), or as many steps as wanted
    """

    def __init__(
        self, layers: Iterable[nn.Module], features: int, embedding: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.embedding = nn.Identity() if embedding is None else embedding
        self.layers = nn.ModuleList(layers)

    def forward(self, input: Tensor, lengths: Tensor | None = None, at: At = EVERY) -> Tensor:
        """Run the layers over all steps."""
        x = self.embedding(input.transpose(0, 1))
        real = None
        if lengths is not None:
            real = torch.arange(len(x), device=x.device).unsqueeze(1) < lengths.to(x.device)
        *lower, top = self.layers
        for layer in lower:
            x = layer(x, real)
        return top(x, real, at).transpose(0, 1)

    def clip_recurrent_weights_(self) -> None:
        """Bring recurrent weights back to their range, after a step of the optimizer."""
        for module in self.modules():
            if module is not self and hasattr(module, "clip_recurrent_weights_"):
                module.clip_recurrent_weights_()  # type: ignore[operator]


def normalize_steps(norm: nn.Module, x: Tensor, real: Tensor | None) -> Tensor:
    """Normalise (T, B, features); batch statistics leave padding out.

    ``real``, (T, B) bool, is False at padding; None if there is none.
    """
    if real is None or not isinstance(norm, nn.BatchNorm1d):
        return normalize(norm, x)
    y = torch.zeros_like(x)
    y[real] = norm(x[real])
    return y
