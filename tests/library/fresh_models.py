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
def norm_of_lstm(num_layers, bidirectional):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.LSTM(FEATURES, HIDDEN, num_layers, bidirectional=bidirectional, batch_first=True)
        return gradient_norm(model, model(torch.randn(BATCH, 1000, FEATURES))[0])


def gradient_share(model, output, num_layers, bidirectional=False):
    return gradient_norm(model, output) / norm_of_lstm(num_layers, bidirectional)


def memory_of(model, steps):
    """The root mean square over units of what h gains from its bias: the sum of u^k over steps."""
    blocks = model._stack().blocks
    u = torch.cat([block.recurrent_weight.detach().double() for block in blocks])
    remembered = (1 - u**steps) / (1 - u).clamp(min=1e-12)
    return torch.where(u == 1, steps, remembered).square().mean().sqrt().item()


def assert_tame(model, output, num_layers, bidirectional=False):
    """Outputs are of order 1, and gradients within bounds that nn.LSTM's gradient gives.

    The loss is that of a readout. With ``output.square().mean()``, the gradient grows as the square
    of the output, whose size is looked at anyway.

    A unit that remembers for tau steps has a gradient of tau times the output's with respect to its
    bias, whatever its other parameters are, where an LSTM starts with memories of two steps. So the
    upper bound follows the memory: it leaves room for parameters and layers, not for growth with
    the length or the depth.
    """
    assert output.abs().max() < 10
    share = gradient_share(model, output, num_layers, bidirectional)
    assert 1 / 100 < share < MOST * memory_of(model, output.shape[1])
