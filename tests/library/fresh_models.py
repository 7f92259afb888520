"""The gradient of a fresh model, and that of an LSTM, which bounds it."""

from functools import cache

import torch
from torch import nn

FEATURES, HIDDEN, BATCH = 10, 64, 3
#: How much larger gradients may be than the memory accounts for.
MOST = 20


def gradient_norm(model, output):
    """The norm over all parameters for the loss of a linear readout of the last step."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(10, output.shape[-1], generator=generator).sub(0.5).mul(2 / HIDDEN**0.5)
    labels = torch.randint(10, [BATCH], generator=generator)
    loss = nn.functional.cross_entropy(output[:, -1] @ weight.T, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.stack([g.double().norm() for g in gradients if g is not None]).norm().item()


@cache
def norm_of_lstm(num_layers, bidirectional, steps=1000):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.LSTM(FEATURES, HIDDEN, num_layers, bidirectional=bidirectional, batch_first=True)
        return gradient_norm(model, model(torch.randn(BATCH, steps, FEATURES))[0])
