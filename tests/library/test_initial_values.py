"""Fresh networks: what is drawn, and that they are tame, whatever the arguments."""

import copy
import itertools
import math
import random

import pytest
import torch
from torch import nn

from experiments.models import SequenceClassifier
from irevrnn import IRevBlock, IRevRNN, IRevStack
from irevrnn.modules.initial_values import COUPLING_DEVIATION
from irevrnn.recurrences.block import FORGOTTEN_BITS
from irevrnn.strategies.rules import CHUNKWISE, IN_FIXED_POINT
from tests.library.fresh_models import BATCH, FEATURES, HIDDEN, assert_tame

pytestmark = pytest.mark.usefixtures("one_core")
#: Arguments, and the values that a network can be built with. A coupling nonlinearity other than
#: these is not of slope 1 at 0, which ``longest_period`` asks for.
VALUES = {
    "num_layers": (1, 2, 3, 6),
    "num_couplings": (0, 1, 2, 3),
    "activation": ("relu", "tanh", "sigmoid", "leaky_relu", "identity"),
    "coupling_activation": ("tanh", "identity"),
    "bias": (True, True, False),
    "bidirectional": (False, False, True),
    "norm": (None, "layer", "batch"),
    "residual": (False, True),
    "memory": ("store", "recompute", "checkpoint", "reversible"),
    "longest_period": (None, 1000),
    "longest_memory": (1000, 1000, 1e4, 1e5),
}
LENGTHS = (100, 1000, 1000, 1000, 20_000)


def spread(values, count, generator):
    """Draw values so that each appears equally often."""
    return generator.sample((values * count)[:count], count)


def draw_cases(count):
    """Networks and lengths."""
    generator = random.Random(0)
    columns = {name: spread(values, count, generator) for name, values in VALUES.items()}
    cases = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for case in cases:
        chunkwise = case["memory"] in CHUNKWISE
        if chunkwise and (case["bidirectional"] or case["norm"] == "batch"):
            case["memory"] = "recompute"
        elif case["memory"] in IN_FIXED_POINT and case["activation"] not in FORGOTTEN_BITS:
            case["memory"] = "checkpoint"
        if not case["num_couplings"]:
            case["longest_period"] = None
    return list(zip(cases, spread(LENGTHS, count, generator), strict=True))


@pytest.mark.parametrize(("case", "steps"), draw_cases(30), ids=str)
def test_a_fresh_network_is_tame(kernels, case, steps):
    model = IRevRNN(FEATURES, HIDDEN, **case)
    output, (_, c_n) = model(torch.randn(BATCH, steps, FEATURES))
    assert c_n.abs().max() < 1e4
    assert_tame(model, output, case["num_layers"], case["bidirectional"])


@pytest.mark.parametrize("norm", [None, "layer"])
def test_states_are_means_over_the_memory(kernels, norm):
    """A constant input ends in states of one size, whatever the memory; noise in smaller ones."""
    model = IRevRNN(4, 300, norm=norm, activation="identity", num_couplings=0)
    memory = -1 / model.layers[0].recurrent_weight.detach().log()
    short, long = memory < 3, (memory > 100) & (memory < 400)
    constant, noise = torch.randn(8, 1, 4).expand(8, 4000, 4), torch.randn(8, 4000, 4)
    size, of_noise = (model(x)[0][:, 3000:].square().mean((0, 1)).sqrt() for x in (constant, noise))
    assert 0.7 < size[short].mean() / size[long].mean() < 1.4
    assert of_noise.max() < 2


def test_couplings_are_normal_and_of_opposite_signs():
    layer = IRevRNN(1, 5000, num_couplings=2).layers[0]
    a, b = layer.coupling_a.detach(), layer.coupling_b.detach()
    for x in (*a, *b):
        assert x.std().item() == pytest.approx(COUPLING_DEVIATION, rel=0.1)
        assert x.mean().abs() < 0.1 * COUPLING_DEVIATION
    assert (a.sum(0) * b.sum(0) <= 0).all()


@pytest.mark.parametrize(("options", "longest"), [({}, 1000), ({"longest_memory": 1e5}, 1e5)])
def test_memories_are_log_uniform_up_to_the_longest(options, longest):
    tau = -1 / IRevRNN(3, 5000, **options).layers[0].recurrent_weight.detach().double().log()
    assert 0.99 < tau.min() < 1.1
    assert 0.9 * longest < tau.max() <= 1.01 * longest  # float32 near 1 is that coarse
    assert 0.75 * longest**0.5 < tau.median() < 1.3 * longest**0.5


@pytest.mark.parametrize("period", [6, 2.5])
def test_units_start_as_oscillators_of_the_period_asked_for(kernels, period):
    model = IRevRNN(
        1, 50, num_couplings=1, activation="tanh", longest_period=period, shortest_period=period,
        dtype=torch.float64,
    )  # fmt: skip
    model.layers[0].recurrent_weight.data.fill_(1)
    impulse = torch.zeros(1, 61, 1, dtype=torch.float64)
    impulse[:, 0] = 1e-3
    model.layers[0].projection.bias.data.zero_()
    output = model(impulse)[0][0].detach() / model.layers[0].projection.weight.detach().T / 1e-3
    for step in range(61):
        turns = step / period
        if turns % 0.5 == 0:  # there and back, or half way
            sign = 1 if turns % 1 == 0 else -1
            assert (sign * output[step] - 1).abs().max() < 0.01


def test_periods_lie_between_the_shortest_and_the_longest():
    model = IRevRNN(1, 1000, num_couplings=2, longest_period=600)
    layer = model.layers[0]
    assert torch.equal(layer.coupling_a[0], -layer.coupling_b[0])
    periods = math.pi / torch.asin(layer.coupling_a[0] / 2)
    assert 6 <= periods.min() < 7 and 500 < periods.max() <= 600.1
    assert layer.coupling_a[1].abs().max() < 0.01  # the others start near 0
    before = layer.coupling_a.clone()
    model.reset_parameters()
    assert not torch.equal(layer.coupling_a, before) and "longest_period=600" in repr(model)


@pytest.mark.parametrize(("longest", "shortest"), [(2000, 100), (10, 1)])
def test_where_the_last_step_alone_is_read_its_layer_remembers_for_long(longest, shortest):
    model = SequenceClassifier(1, 2, 1000, 2, longest_memory=longest)
    first, last = (-1 / layer.recurrent_weight.detach().log() for layer in model.rnn.layers)
    assert first.min() < 1.1
    assert 0.999 * shortest <= last.min() < 1.1 * shortest and last.max() > 0.95 * longest


@pytest.mark.parametrize(("options", "message"), [
    ({"longest_memory": 0.5}, r"longest_memory must be in \[1, inf\); got 0.5"),
    ({"longest_period": 5}, "periods must be 2 < shortest_period <= .* got 6.0 and 5"),
    ({"longest_period": 5, "shortest_period": 2}, "periods must be 2 < .* got 2 and 5"),
    ({"longest_period": 9, "num_couplings": 0}, "num_couplings of at least 1"),
])  # fmt: skip
def test_a_start_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        IRevRNN(1, 2, **options)


def test_reset_parameters_reaches_every_module(kernels):
    layers = list(IRevRNN(4, 4, 1, norm="batch").layers)
    blocks = [IRevBlock(4, 6), IRevBlock(4, 6, forgets=False)]
    model = IRevStack([nn.Sequential(nn.Linear(3, 4)), *layers, *blocks])
    model(torch.randn(4, 10, 3))
    before = copy.deepcopy(model.state_dict())
    model.reset_parameters()
    after = model.state_dict()
    unchanged = {name for name, x in after.items() if torch.equal(x, before[name])}
    norms = {f"blocks.{i}.norm.{name}" for i in (2, 3) for name in ("weight", "bias")}
    biases = {"blocks.1.norm.bias", *(f"blocks.{i}.input_projection.bias" for i in (2, 3))}
    assert unchanged == norms | biases | {"blocks.3.recurrent_weight", "blocks.3.scale"}
    assert after["blocks.1.norm.running_mean"].eq(0).all()


# --- stacks of blocks -----------------------------------------------------------------------------

WIDTH = 32
BLOCKS = {
    "norm": (None, "layer"),
    "forgets": (True, False),
    "num_couplings": (0, 1, 2, 3),
    "coupling_activation": ("identity", "tanh"),
}
DEPTHS = (1, 2, 3, 4, 5, 6)


def draw_stacks():
    """Every combination of options, with depths and lengths."""
    generator = random.Random(1)
    cases = [dict(zip(BLOCKS, row, strict=True)) for row in itertools.product(*BLOCKS.values())]
    depths, lengths = (
        spread(values, len(cases), generator) for values in (DEPTHS, (100, 1000, 20_000))
    )
    return list(zip(cases, depths, lengths, strict=True))


def make_stack(depth, steps, options):
    """Units that never forget are drawn for the length of the sequence."""
    options = options | {"longest_memory": 1000 if options["forgets"] else max(1000, steps)}
    if not options["num_couplings"]:
        options["longest_period"] = None
    blocks = [IRevBlock(WIDTH, HIDDEN, **options) for _ in range(depth)]
    return IRevStack([nn.Linear(FEATURES, WIDTH), *blocks])


@pytest.mark.parametrize(("options", "depth", "steps"), draw_stacks(), ids=str)
def test_a_fresh_stack_is_tame(kernels, options, depth, steps):
    model = make_stack(depth, steps, options)
    assert_tame(model, model(torch.randn(BATCH, steps, FEATURES))[0], depth)
