"""A sequence in pieces, or step by step, is the sequence at once."""

import pytest
import torch
from torch import nn

from irevrnn import IRevBlock, IRevRNN, IRevRNNCell, scan
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.strategies.rules import CHUNKWISE
from tests.cases import assert_same_bits, make_inputs

pytestmark = pytest.mark.usefixtures("kernels")


def make_model(memory, **keywords):
    torch.manual_seed(0)
    keywords = {"num_layers": 2, "activation": "leaky_relu", "norm": "layer", **keywords}
    model = IRevRNN(1, 7, memory=memory, **keywords)
    with torch.no_grad():
        for layer in model.layers:
            layer.coupling_a.normal_(0, 0.3)
            layer.coupling_b.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_pieces_of_a_scan_give_the_same_bits(memory, activation, dtype):
    z, h, c, *weights = (x.detach() for x in make_inputs(70, 3, 33, 3, dtype))
    wanted = scan(z, h, c, *weights, activation, memory=memory)
    outputs = []
    for piece in z.split([1, 15, 16, 17, 21]):
        out, h, c = scan(piece, h, c, *weights, activation, memory=memory)
        outputs.append(out)
    assert_same_bits((torch.cat(outputs), h, c), wanted)


@pytest.mark.parametrize("memory", ["reversible", "store_fixed"])
@pytest.mark.parametrize("piece", [1, 25])
def test_pieces_in_fixed_point_keep_within_a_bound(memory, piece):
    """Each piece begins at step 0, where rounding has another offset than the whole has there.

    Decay rounds u * h by less than 2^-24, whatever the offset; two runs differ by less than twice
    that in a step, and a unit remembers a share u of it. Without couplings nothing else adds.
    """
    model = make_model(memory, dtype=torch.float64, num_layers=1, num_couplings=0, norm=None)
    x = torch.randn(3, 400, 1, dtype=torch.float64)
    wanted, (h_n, c_n) = model(x)
    outputs, state = [], None
    for part in x.split(piece, 1):
        output, state = model(part, state)
        outputs.append(output)
    apart = (torch.cat(outputs, 1) - wanted).abs().amax((0, 1))
    u = model.layers[0].recurrent_weight
    assert (apart < 2.0**-23 / (1 - u)).all()
    assert (apart > 0).any()  # they do differ
    assert torch.equal(state[0][0], outputs[-1][:, -1]) and torch.equal(state[1], c_n)
    assert (h_n[0] - state[0][0]).abs().amax() <= apart.max()


@pytest.mark.parametrize("memory", ["store", "recompute", *CHUNKWISE])
def test_truncated_backpropagation(memory):
    """Detached states cut the gradient where the pieces meet, and only there."""
    model, x = make_model(memory), torch.randn(3, 60, 1, requires_grad=True)
    _, state = model(x[:, :30])
    detached = tuple(s.detach() for s in state)
    output, _ = model(x[:, 30:], detached)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient[:, :30].eq(0).all() and gradient[:, 30:].ne(0).any()
    output, _ = model(x[:, 30:], state)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient[:, :30].ne(0).any()


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_cell_steps_through_a_layer(norm, activation):
    options = {"num_couplings": 2, "activation": activation, "norm": norm}
    model = IRevRNN(3, 7, dtype=torch.float64, **options)
    cell = IRevRNNCell.of(model.layers[0])
    assert {*cell.parameters()} == {*model.parameters()}
    x = torch.randn(5, 20, 3, dtype=torch.float64)
    wanted, (h_n, c_n) = model(x)
    state, outputs = None, []
    for x_t in x.unbind(1):
        state = cell(x_t, state)
        outputs.append(state[0])
    torch.testing.assert_close(torch.stack(outputs, 1), wanted)
    torch.testing.assert_close(state, (h_n[0], c_n[0]))


@pytest.mark.parametrize("options", [
    {}, {"norm": "batch", "activation": "tanh"}, {"bias": False, "coupling_activation": "identity"},
    {"num_couplings": 0, "norm": "layer"},
], ids=str)  # fmt: skip
def test_the_cell_of_a_layer_has_its_arguments(options):
    for model in (IRevRNN(3, 7, **options).eval(), IRevRNN(3, 7, **options)):
        cell = IRevRNNCell.of(model.layers[0])
        assert repr(cell) == repr(IRevRNNCell(3, 7, **options))
        assert cell.training == model.training


def test_bad_cells():
    with pytest.raises(TypeError, match=r"got IRevBlock: run IRevStack\(\[block\]\) on sequences"):
        IRevRNNCell.of(IRevBlock(3, 4))
    with pytest.raises(TypeError, match="layer must be one of the layers of an IRevRNN; got LSTM"):
        IRevRNNCell.of(nn.LSTM(3, 7))
    with pytest.raises(ValueError, match="activation must be one of"):
        IRevRNNCell(3, 7, activation="swish")
    assert repr(IRevRNNCell(3, 7, activation="tanh")).startswith(
        "IRevRNNCell(\n  3, 7, activation="
    )
