"""A new activation is one entry of a table: the layer and its errors follow."""

import pytest
import torch

from irevrnn import IRevRNN
from irevrnn.kernels.activations import ACTIVATIONS, Activation

SOFTSIGN = Activation(torch.nn.functional.softsign, lambda y: (1 - y.abs()).square())


@pytest.fixture
def made_up(monkeypatch):
    """An activation that Python alone has, by a name that nobody will add."""
    monkeypatch.setitem(ACTIVATIONS, "made_up", SOFTSIGN)


@pytest.fixture
def in_python(monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", "python")


@pytest.mark.usefixtures("made_up", "in_python")
@pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint"])
def test_the_layer_takes_a_new_activation(memory):
    options = {"activation": "made_up", "coupling_activation": "made_up"}
    model = IRevRNN(3, 4, 2, memory=memory, dtype=torch.float64, **options)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: model(x)[0], x.requires_grad_())
    assert model(x)[0].abs().max() < 1


@pytest.mark.usefixtures("made_up")
def test_errors_name_a_new_activation():
    with pytest.raises(ValueError, match="activation must be one of relu, .*, made_up; got 'swi"):
        IRevRNN(3, 4, activation="swish")
    message = r"'made_up' cannot be inverted: .* takes identity \(0 bits\), .*, relu \(30 bits\)"
    with pytest.raises(ValueError, match=message):
        IRevRNN(3, 4, activation="made_up", memory="reversible")


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("argument", ["activation", "coupling_activation"])
def test_the_kernels_say_what_they_lack(kernels, argument):
    message = "the compiled kernels have no activation made_up: add it to"
    with pytest.raises(ValueError, match=message):
        IRevRNN(3, 4, **{argument: "made_up"})(torch.randn(2, 7, 3))
