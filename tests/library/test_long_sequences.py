"""A million steps: memory that does not grow with them but for the forgotten bits."""

from functools import partial

import pytest
import torch
from torch import nn

from experiments.bench.measure import peak_memory, saved_bytes
from irevrnn import IRevBlock, IRevRNN, IRevStack
from irevrnn.allocator import use_caching_allocator
from irevrnn.strategies.fixed_point import stored_bits
from irevrnn.strategies.reversible import HASHES

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


def forgotten_bits(model, x):
    """Entropy of the decay, and two bits wherever leaky_relu gave a negative value."""
    negative = []

    def count(y):
        negative.append((y < 0).sum().item())

    handle = model.layers[1].register_forward_pre_hook(lambda _, inputs: count(inputs[0]))
    count(model(x)[0])  # with gradients: without, nothing is computed in fixed point
    handle.remove()
    of_decay = sum(stored_bits(layer.recurrent_weight).sum().item() for layer in model.layers)
    return of_decay * x.shape[1] + 2 * sum(negative)


def test_what_is_held_grows_by_the_forgotten_bits_alone():
    fixed = {}
    for steps in (10_000, MILLION):
        model, x = make_model(), make_input(steps)
        saved = saved_bytes(
            partial(model, x, return_sequence=False),
            exclude=(x, *model.parameters()),
            exclude_output=True,
        )
        fixed[steps] = saved - HASHES * 2 * 8 - forgotten_bits(model, x) / 8
    # Beside its bits, a unit has h, c, their scales, and a few changes of these; a bit stack has a
    # tail, a place and a count. How many bits there are is known on average.
    units = 2 * 64
    assert all(0 <= rest <= 8 * 8 * units for rest in fixed.values()), fixed
