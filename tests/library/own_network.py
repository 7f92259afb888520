"""A recurrent network of a user's own, with three states, one of them nested."""

import torch
from torch import nn


class OwnNetwork(nn.Module):
    """A hidden state, an associative memory that it writes to, and a slow mean."""

    def __init__(self, features, hidden):
        super().__init__()
        self.inner = nn.Linear(features + 2 * hidden, hidden)
        self.key = nn.Linear(hidden, 3)
        self.hidden = hidden

    def forward(self, x, state=None):
        if state is None:
            zeros = x.new_zeros(x.shape[1], self.hidden)
            state = zeros, (x.new_zeros(x.shape[1], 3, self.hidden), zeros)
        h, (memory, mean) = state
        outputs = []
        for x_t in x:
            key = torch.softmax(self.key(h), -1)
            read = (key.unsqueeze(-1) * memory).sum(1)
            h = torch.tanh(self.inner(torch.cat([x_t, h, read], -1)))
            memory = 0.9 * memory + key.unsqueeze(-1) * h.unsqueeze(1)
            mean = 0.99 * mean + 0.01 * h
            outputs.append(h + mean)
        return torch.stack(outputs), (h, (memory, mean))
