"""Scales of fixed-point numbers, which change where states grow, shrink or begin small."""

import random

import pytest
import torch
from torch.nn.functional import linear

from irevrnn import IRevRNN
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.recurrences.block import FORGOTTEN_BITS

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.filterwarnings("ignore:states of layer"),  # that have grown
]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def sums(memory):
    """A layer in float64 whose only unit adds up what it reads."""
    model = IRevRNN(1, 1, 1, num_couplings=0, activation="identity", memory=memory).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        model.layers[0].projection.bias.zero_()
    return model


@pytest.mark.parametrize("size", [31.9, 33.0, 130.0, 2e3, 2049.0, 1.4e5, 2e6, 8e6])
def test_the_largest_state_has_27_bits(size):
    x = torch.tensor([0.3 * size, 0.7001 * size], dtype=torch.float64)
    output, _ = sums("reversible")(x.reshape(1, 2, 1))
    assert abs(output[0, -1] - x.sum()) <= 2 * size / 2**28  # two roundings, by half a quantum


def test_states_that_pass_through_every_scale_have_the_gradients_of_stored_ones():
    x = (2.0 ** torch.linspace(0, 14.5, 3000, dtype=torch.float64)).reshape(1, -1, 1)
    grads = []
    for memory in ("store_fixed", "reversible"):
        model = sums(memory)
        output, _ = model(x)
        assert 2**21 < output[0, -1] < 2**23
        grads.append(torch.autograd.grad(output.square().mean(), model.parameters()))
    assert all(map(torch.equal, *grads))


# --- growth and outliers --------------------------------------------------------------------------


def outcome(model, memory, x, rows=slice(None)):
    """Return the output, and the gradients of a loss of some sequences."""
    model.memory = memory
    output, _ = model(x)
    gradients = torch.autograd.grad(output[rows].square().mean(), [*model.parameters()])
    return output.detach(), gradients


def assert_agree(model, x, rows=slice(None)):
    """Compare each unit of each sequence, by the largest of its values, and the gradients."""
    (got, gradients), (wanted, true) = (outcome(model, m, x, rows) for m in ("reversible", "store"))
    apart = (got - wanted).abs().amax(1) / wanted.abs().amax(1)
    assert apart.max() < 1e-4
    for g, w in zip(gradients, true, strict=True):
        assert (g - w).abs().max() <= 1e-4 * w.abs().max()
    stored = outcome(model, "store_fixed", x, rows)
    assert torch.equal(got, stored[0]) and all(map(torch.equal, gradients, stored[1]))


def growing(couplings, weight, dtype):
    """A layer whose only unit grows exponentially from its first input."""
    options = {"activation": "identity", "coupling_activation": "identity", "dtype": dtype}
    model = IRevRNN(1, 1, 1, couplings, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(weight)
        layer = model.layers[0]
        layer.recurrent_weight.fill_(1)
        layer.projection.weight.fill_(1)
        layer.projection.bias.zero_()
    return model


@dtypes
@pytest.mark.parametrize(("couplings", "weight", "first"), [
    (2, 0.1, 1e-3),  # to 206,817, within one chunk
    (2, 0.1, 1e-6), (3, 0.08, 1e-4), (4, 0.02, 3.0),
])  # fmt: skip
def test_growth_within_a_chunk(couplings, weight, first, dtype):
    x = torch.zeros(1, 100, 1, dtype=dtype)
    x[0, 0] = first
    model = growing(couplings, weight, dtype)
    assert outcome(model, "store", x)[0][0, -1] > 100 * first
    assert_agree(model, x)


@dtypes
@pytest.mark.parametrize("place", ["first", "at once with a reset", "again and again"])
def test_an_outlier_makes_no_other_sequence_coarse(place, dtype):
    model = IRevRNN(3, 16, 2, 1, activation="leaky_relu", dtype=dtype)
    x = torch.randn(4, 200, 3, dtype=dtype)
    x[
        2, {"first": [5], "at once with a reset": [64], "again and again": [5, 60, 130]}[place], 1
    ] = 1e6
    assert_agree(model, x, rows=[0, 1, 3])


@dtypes
def test_an_outlier_makes_no_other_unit_coarse(dtype):
    model = IRevRNN(3, 16, 1, 1, activation="leaky_relu", dtype=dtype)
    with torch.no_grad():
        model.layers[0].projection.weight[5] *= 1e6
    assert_agree(model, torch.randn(2, 200, 3, dtype=dtype))


@pytest.mark.parametrize("quiet", [0.0, 1e-7])
def test_a_sequence_after_an_outlier_and_a_reset_is_as_fine_as_alone(quiet):
    model = IRevRNN(3, 16, 1, 1, activation="leaky_relu", memory="reversible")
    x, resets = 1e-3 * torch.randn(1, 300, 3), torch.zeros(1, 300, dtype=torch.bool)
    x[0, 10], x[0, 37:60], resets[0, 37] = 1e6, quiet, True
    with torch.no_grad():
        model.layers[0].projection.bias.zero_()
    output, _ = model(x, resets=resets)
    alone, _ = model(x[:, 37:])
    apart = (output[:, 37:] - alone).abs().amax(1)
    assert (apart <= 1e-5 * alone.abs().amax(1)).all()


# --- random problems ------------------------------------------------------------------------------


def draw_problem(seed):
    """A layer, its input and states, and the length of its chunks."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    hidden, batch, steps = (
        draw.choice([1, 3, 9, 40]),
        draw.choice([1, 2, 4]),
        draw.choice([1, 5, 17, 100, 200]),
    )

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = IRevRNN(
        2, hidden, 1, draw.randrange(5), activation=draw.choice([*FORGOTTEN_BITS]),
        coupling_activation=draw.choice(list(ACTIVATIONS)),
    )  # fmt: skip
    layer = model.layers[0]
    with torch.no_grad():
        u = torch.rand(hidden, generator=generator) * 2 - 1
        layer.recurrent_weight.copy_(u.masked_fill(u.abs() > draw.random(), 1))
        for weight in (layer.coupling_a, layer.coupling_b):
            weight.copy_(normal(*weight.shape, scale=draw.choice([0.01, 0.1, 0.3])))
        layer.projection.weight.copy_(normal(hidden, 2))
        layer.projection.bias.copy_(normal(hidden, scale=draw.choice([0, 1e-3, 1])))
    x = normal(batch, steps, 2, scale=10 ** draw.uniform(-6, 6))
    if draw.random() < 0.3:  # outliers
        x[torch.rand(x.shape, generator=generator) < 0.02] *= 10 ** draw.uniform(0, 5)
    if draw.random() < 0.3:  # silence
        x[torch.rand(batch, steps, generator=generator) < 0.7] = 0
    scale = draw.choice([0, 10 ** draw.uniform(-6, 6)])
    states = [normal(1, batch, hidden, scale=scale * 10 ** draw.uniform(-2, 0)) for _ in range(2)]
    chunk = draw.choice([1, 2, 7, 16, 33, 64, steps])
    return model.to(draw.choice([torch.float32, torch.float64])), x, states, chunk


def states_of(model, memory, x, hidden):
    """Outputs and the last c of each unit, in float64."""
    dtype = model.layers[0].recurrent_weight.dtype
    model.memory = memory
    output, (_, c_n) = model(x.to(dtype), [state.to(dtype) for state in hidden])
    return output.detach().double(), c_n[0].detach().double()


@pytest.mark.slow
def test_500_random_problems_of_any_size(monkeypatch):
    """Within 1e-4 of the largest value of a sequence and unit, its input included, or an error."""
    refused = 0
    for seed in range(500):
        model, x, hidden, chunk = draw_problem(seed)
        monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_, n=chunk: n)
        try:
            got = states_of(model, "reversible", x, hidden)
        except OverflowError:
            refused += 1
            continue
        wanted = states_of(model, "recompute", x, hidden)
        projection = model.layers[0].projection
        z = linear(x.to(projection.weight.dtype), projection.weight, projection.bias).double()
        sizes = [wanted[0].abs().amax(1), wanted[1].abs(), z.detach().abs().amax(1)]
        sizes += [state[0].abs() for state in hidden]
        largest = torch.stack(sizes).amax(0)
        apart = torch.maximum((got[0] - wanted[0]).abs().amax(1), (got[1] - wanted[1]).abs())
        assert (apart <= 1e-4 * largest).all(), seed
    assert refused < 100
