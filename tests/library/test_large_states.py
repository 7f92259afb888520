"""The warning of states that leave the range in which a network trains."""

import copy
import warnings

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from irevrnn import IRevRNN
from irevrnn.strategies.stack import LARGE_STATE


def growing(layer, **options):
    """A network in which the states of one layer grow to 1e4 times the input and more."""
    model = IRevRNN(3, 8, 3, activation="identity", **options)
    with torch.no_grad():
        [*model.layers, *model.reverse_layers][layer].projection.weight.fill_(1e4)
    return model


X = torch.ones(2, 5, 3)


@pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint", "reversible"])
def test_the_layer_is_named_once(kernels, memory):
    model = growing(1, memory=memory)
    with torch.no_grad():
        model.layers[0].projection.weight.fill_(0.1)
    with pytest.warns(UserWarning, match=r"states of layer 1 have grown to \d.*e\+0[4-9]") as found:
        model(X)
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X)
    with pytest.warns(UserWarning, match="clip_recurrent_weights_"):
        copy.deepcopy(model)(X)


@pytest.mark.parametrize(("value", "message"), [
    (-1.1 * LARGE_STATE, "layer 2"), (torch.nan, "layer 2 are NaN: the input .*, or .*; set"),
])  # fmt: skip
def test_the_cell_state_and_what_is_no_number_count(kernels, value, message):
    hidden = (torch.zeros(3, 2, 8), torch.zeros(3, 2, 8))
    hidden[1][2, 1, 4] = value
    with pytest.warns(UserWarning, match=message):
        IRevRNN(3, 8, 3)(X, hidden)


def test_both_directions_of_a_layer_have_its_number(kernels):
    model = growing(3, bidirectional=True)  # the lowest of the other direction
    with torch.no_grad():
        for layer in (*model.layers[1:], *model.reverse_layers[1:]):
            layer.projection.weight.zero_()
    with pytest.warns(UserWarning, match="layer 0"):
        model(X)


@pytest.mark.parametrize("batch", [0, 2])
def test_states_of_order_1_are_nothing_to_warn_of(kernels, batch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IRevRNN(3, 8, 3)(torch.randn(batch, 100, 3))


def compiled(model):
    torch.compile(model, fullgraph=True, backend="eager")(X)


def exported(model):
    assert "aminmax" not in torch.export.export(model, (X,)).graph_module.code


def recorded(model):
    make_fx(lambda x: model(x)[0])(X)


def for_each_sample(model):
    def loss(parameters, x):
        return functional_call(model, parameters, (x.unsqueeze(0),))[0].sum()

    vmap(grad(loss), (None, 0))({n: p.detach() for n, p in model.named_parameters()}, X)


def without_values(model):
    model.to("meta")(X.to("meta"))


@pytest.mark.parametrize("run", [compiled, exported, recorded, for_each_sample, without_values])
def test_states_that_cannot_be_read_are_left_alone(kernels, run):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(growing(0))
