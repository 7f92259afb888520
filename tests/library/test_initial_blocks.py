"""A fresh stack of blocks is tame, whatever the arguments."""

import itertools
import random

import pytest
import torch
from torch import nn

from irevrnn import IRevBlock, IRevRNN, IRevStack
from tests.library.fresh_models import BATCH, FEATURES, HIDDEN, assert_tame, gradient_share

pytestmark = pytest.mark.usefixtures("one_core")
WIDTH = 32
VALUES = {
    "norm": (None, "layer"),
    "forgets": (True, False),
    "num_couplings": (0, 1, 2, 3),
    "coupling_activation": ("identity", "tanh"),
}
COMBINATIONS = [dict(zip(VALUES, row, strict=True)) for row in itertools.product(*VALUES.values())]
DEPTHS = (1, 2, 3, 4, 5, 6)
LENGTHS = (100, 1000, 20_000)


def draw_cases():
    """Every combination, with depths and lengths that appear about equally often."""
    generator = random.Random(1)
    count = len(COMBINATIONS)
    depths, lengths = (
        generator.sample((values * count)[:count], count) for values in (DEPTHS, LENGTHS)
    )
    return list(zip(COMBINATIONS, depths, lengths, strict=True))


def make_stack(depth, steps, options):
    """Units that never forget are drawn for the length of the sequence."""
    options = options | {"longest_memory": 1000 if options["forgets"] else max(1000, steps)}
    if not options["num_couplings"]:
        options["longest_period"] = None
    blocks = [IRevBlock(WIDTH, HIDDEN, **options) for _ in range(depth)]
    return IRevStack([nn.Linear(FEATURES, WIDTH), *blocks])


@pytest.mark.parametrize(("options", "depth", "steps"), draw_cases(), ids=str)
def test_a_fresh_stack_is_tame(kernels, options, depth, steps):
    model = make_stack(depth, steps, options)
    assert_tame(model, model(torch.randn(BATCH, steps, FEATURES))[0], depth)


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("forgets", [True, False])
def test_gradients_up_to_a_hundred_steps_are_as_large_as_those_of_lstm(kernels, norm, forgets):
    """Within a factor of 100, at every depth, for the default couplings."""
    for depth in DEPTHS:
        model = make_stack(depth, 100, {"norm": norm, "forgets": forgets, "num_couplings": 1})
        share = gradient_share(model, model(torch.randn(BATCH, 100, FEATURES))[0], depth)
        assert 1 / 100 < share < 100


def test_a_projection_of_ones_own_is_left_to_itself():
    block = IRevBlock(4, 6)
    block.input_projection = nn.Linear(4, 6, bias=False)
    before = block.recurrent_weight.clone()
    IRevStack([block]).reset_parameters()
    assert not torch.equal(block.recurrent_weight, before)
    model = IRevRNN(4, 6)
    model.layers[0].projection = nn.Sequential(nn.Linear(4, 6))
    before = model.layers[0].recurrent_weight.clone()
    model.reset_parameters()
    assert not torch.equal(model.layers[0].recurrent_weight, before)
