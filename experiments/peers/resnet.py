"""A residual convolutional network over time, which has no recurrence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.modules.norm import normalize

#: Steps that a convolution sees.
KERNEL = 9
#: Steps of a block's input for each step of its output.
STRIDE = 2


class ResidualBlock(nn.Module):
    r"""Two convolutions, each after a norm and a nonlinearity (He et al., 2016).

    .. math:: y = \mathrm{subsample}(x) + \mathrm{conv}(\mathrm{dropout}(a(\mathrm{conv}(a(x)))))

    with a the rectified batch normalisation, and a stride in the first convolution.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, KERNEL, stride, padding=KERNEL // 2, bias=False)
            for stride in (STRIDE, 1)
        )
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the block's output, (B, width, T / STRIDE), and its lengths."""
        y = self.convolutions[0](_activate(self.norms[0], x, lengths))
        if lengths is not None:
            lengths = (lengths + STRIDE - 1) // STRIDE
        y = self.convolutions[1](self.dropout(_activate(self.norms[1], y, lengths)))
        return x[:, :, ::STRIDE] + y, lengths


class ResNet(nn.Module):
    """Residual blocks, each of which keeps every second step.

    What is padded reaches nothing that belongs to a sequence: norms leave it out, and convolutions
    see zeros there, as beyond the end of a sequence on its own.

    Args:
        inputs: features of a step.
        hidden_size: features within.
        num_layers: blocks.
        dropout: probability of dropping a feature within a block, in all steps of a sequence.

    Shape:
        - input: (batch, seq, inputs)
        - lengths: (batch,) int64, steps of each sequence, if some are padded at their end
        - output: (batch, seq', hidden_size), and the lengths in steps of the output
    """

    def __init__(
        self, inputs: int, hidden_size: int, num_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(inputs, hidden_size, KERNEL, padding=KERNEL // 2)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_size, dropout) for _ in range(num_layers))
        self.norm = nn.BatchNorm1d(hidden_size)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return features of every few steps, and the lengths of sequences in these."""
        if lengths is not None:
            lengths = lengths.to(input.device)
            input = input * _real(lengths, input.shape[1]).unsqueeze(2)
        x = self.embedding(input.transpose(1, 2))
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return _activate(self.norm, x, lengths).transpose(1, 2), lengths


def _activate(norm: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the rectified norm of (B, width, T), 0 where it is padded."""
    if lengths is None:
        return F.relu(norm(x))
    real = _real(lengths, x.shape[2])
    return F.relu(normalize_steps(norm, x.transpose(1, 2), real)).transpose(1, 2)


def _real(lengths: Tensor, steps: int) -> Tensor:
    """Return which of (B, T) are steps of a sequence."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def normalize_steps(norm: nn.Module, x: Tensor, real: Tensor | None) -> Tensor:
    """Normalise (T, B, features); batch statistics leave padding out.

    ``real``, (T, B) bool, is False at padding; None if there is none.
    """
    if real is None or not isinstance(norm, nn.BatchNorm1d):
        return normalize(norm, x)
    y = torch.zeros_like(x)
    y[real] = norm(x[real])
    return y
