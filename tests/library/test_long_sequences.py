"""A million steps: memory that does not grow with them but for the forgotten bits."""

import pytest
import torch
from torch import nn

from experiments.bench.measure import peak_memory
from irevrnn import IRevBlock, IRevRNN, IRevStack
from irevrnn.kernels.allocator import use_caching_allocator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kernels")]
MILLION = 1_000_000


def make_model():
    torch.manual_seed(0)
    model = IRevRNN(1, 64, 2, activation="leaky_relu", norm="layer", memory="reversible")
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.uniform_(0.99, 1)
    return model


def make_input(steps):
    return torch.randn(1, steps, 1, generator=torch.Generator().manual_seed(1))


def make_oscillators():
    blocks = [nn.Linear(1, 32), IRevBlock(32, 64, forgets=False, norm=None)]
    return IRevStack(blocks, memory="reversible")


def prepare(make, steps, few):
    """Return a step of training, after one of few steps."""
    torch.set_num_threads(1)
    use_caching_allocator()
    model, x = make(), make_input(steps)

    def step(x=x):
        model(x, return_sequence=False)[0].sum().backward()

    step(x[:, :few])
    return step


def test_a_million_steps_take_64_megabytes():
    assert peak_memory(prepare, make_model, MILLION, 100) <= 64e6


def test_where_nothing_is_forgotten_four_times_the_steps_add_nothing():
    peaks = [peak_memory(prepare, make_oscillators, n * MILLION, 3000) for n in (1, 4)]
    assert peaks[0] <= 8e6
    assert peaks[1] <= peaks[0] + 2e6  # of noise
