"""A block of one's own."""

import torch
from torch import nn
from torch.nn import functional as F

from irevrnn import Block, Dropout


class Convolution(Block):
    """A block of a user: a convolution over the features of a step, and experts."""

    def __init__(self, width, hidden_size, p=0.1, **options):
        super().__init__(hidden_size, **options)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(1, 2, 3, padding=1)
        self.inner = nn.Linear(2 * width, hidden_size)
        self.choice = nn.Linear(width, 2)
        self.experts = nn.ModuleList(nn.Linear(hidden_size, width) for _ in range(2))
        self.drop = Dropout(p)

    def project(self, x):
        rows = self.norm(x).flatten(0, -2).unsqueeze(1)
        return 0.1 * self.inner(F.silu(self.mix(rows)).flatten(1)).unflatten(0, x.shape[:-1])

    def output(self, x, h):
        weights = self.choice(x).softmax(-1)
        experts = torch.stack([expert(torch.tanh(h)) for expert in self.experts], -1)
        return x + self.drop((experts * weights.unsqueeze(-2)).sum(-1))
