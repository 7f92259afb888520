"""Units of fixed-point numbers, which become coarser as states grow."""

import pytest
import torch

from irevrnn import IRevRNN

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.filterwarnings("ignore:states of layer"),  # that have grown
]


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
    assert abs(output[0, -1] - x.sum()) <= 2 * size / 2**28  # two roundings, by half a unit


def test_states_that_pass_through_every_unit_have_the_gradients_of_stored_ones():
    x = (2.0 ** torch.linspace(0, 14.5, 3000, dtype=torch.float64)).reshape(1, -1, 1)
    grads = []
    for memory in ("store_fixed", "reversible"):
        model = sums(memory)
        output, _ = model(x)
        assert 2**21 < output[0, -1] < 2**23
        grads.append(torch.autograd.grad(output.square().mean(), model.parameters()))
    assert all(map(torch.equal, *grads))
