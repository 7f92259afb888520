"""The modules of a stack whose output is the bits of a step.

The readout and its loss are the stack's last module. So where the strategy works in chunks, neither
256 logits a step nor any block's output exists for more than one of them. What is to be predicted
travels beside the features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.forecast.data import LEVELS
from irevrnn import IRevBlock


class Embedding(nn.Module):
    """A linear map of the sample, (..., 2) to (..., width + 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.inner(x[..., :1]), x[..., 1:]), -1)


class BlockBesideLevel(IRevBlock):
    """A gated block on all features but the last, which is passed on."""

    def project(self, x: Tensor) -> Tensor:
        return super().project(x[..., :-1].contiguous())

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.cat((super().output(x[..., :-1].contiguous(), h), x[..., -1:]), -1)


class Bits(nn.Module):
    """The bits that the next level costs, (..., width + 1) to (..., 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.readout = nn.Linear(width, LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.readout(x[..., :-1]).flatten(0, -2)
        level = x[..., -1].long()
        nats = F.cross_entropy(logits, level.flatten(), reduction="none")
        return nats.view(*level.shape, 1) / math.log(2)
