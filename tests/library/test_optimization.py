"""Groups of parameters for an optimizer."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from irevrnn import IRevRNN, parameter_groups


def named(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [{names[parameter] for parameter in group["params"]} for group in groups]


def test_every_parameter_is_in_its_group():
    model = nn.Sequential(IRevRNN(3, 4, 2, norm="layer"), nn.Linear(4, 2))
    groups = parameter_groups(model, 0.01, 0.1, 0.5, 0.25)
    matrices, vectors, recurrent, couplings = named(model, groups)
    layers = ("0.layers.0", "0.layers.1")
    assert matrices == {"1.weight", *(f"{layer}.projection.weight" for layer in layers)}
    assert recurrent == {f"{layer}.recurrent_weight" for layer in layers}
    assert couplings == {f"{layer}.coupling_{x}" for layer in layers for x in "ab"}
    assert vectors == {*dict(model.named_parameters())} - matrices - recurrent - couplings
    assert [group["lr"] for group in groups] == [0.01, 0.01, 0.005, 0.0025]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0, 0.0]


def test_an_optimizer_leaves_memories_as_they_are_without_a_gradient():
    model = IRevRNN(3, 4)
    u = model.layers[0].recurrent_weight
    with torch.no_grad():
        u.fill_(0.999)
    for groups, kept in ((parameter_groups(model, 1e-2, 0.1), True), (model.parameters(), False)):
        optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert torch.equal(u, torch.full((4,), 0.999)) == kept


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.factor * x


def test_originals_of_computed_weights_are_in_the_group_of_the_weight():
    model = IRevRNN(3, 4, 2)
    prune.random_unstructured(model.layers[0], "recurrent_weight", 0.5)
    parametrizations.weight_norm(model.layers[1], "coupling_a")
    parametrizations.orthogonal(model.layers[1].projection)
    parametrize.register_parametrization(model.layers[1], "recurrent_weight", Scaled())
    model = nn.ModuleDict({"original": model})  # no part of the name of a parameter
    groups = named(model, parameter_groups(model, 0.01))
    matrices, recurrent, couplings = groups[0], groups[2], groups[3]
    assert "original.layers.0.recurrent_weight_orig" in recurrent
    assert "original.layers.1.parametrizations.recurrent_weight.0.factor" in recurrent
    computed = {f"original.layers.1.parametrizations.coupling_a.original{x}" for x in "01"}
    others = ("0.coupling_a", "0.coupling_b", "1.coupling_b")
    assert couplings == computed | {f"original.layers.{x}" for x in others}
    assert "original.layers.1.projection.parametrizations.weight.original" in matrices


def test_other_names_of_recurrent_weights():
    model = nn.ModuleDict({"ring": nn.ParameterDict({"nu_log": nn.Parameter(torch.zeros(3))})})
    (group,) = parameter_groups(model, 1.0, recurrent_names=("nu_log",))
    assert group["lr"] == 0.1
    with pytest.raises(ValueError, match="weight of a lazy module has no shape yet: run the model"):
        parameter_groups(nn.LazyLinear(4), 1.0)
