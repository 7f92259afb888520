"""Modules of all kinds, which the strategies of the stack run once more in the backward pass."""

import pytest
import torch
from torch import nn

from irevrnn import Dropout, IRevBlock, IRevRNN, IRevStack

pytestmark = pytest.mark.usefixtures("kernels")
chunkwise = pytest.mark.parametrize("memory", ["checkpoint", "reversible"])


class Listed(nn.Linear):
    """A module that reaches its parameters by a bound method."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.functions = [super().forward]

    def forward(self, x):
        return self.functions[0](x)


def compiled_in_place():
    layer = nn.Linear(4, 4)
    layer.compile(backend="eager")
    return layer


def draw(steps=150):
    return torch.randn(steps, 2, 4, generator=torch.Generator().manual_seed(1))


def gradients(model, x, memory, between=lambda: None):
    """Gradients of x, where it requires one, and of the parameters; dropout from one seed."""
    model.memory = memory
    model.zero_grad()
    torch.manual_seed(2)
    output, _ = model(x)
    between()
    output.square().mean().backward()
    return [p.grad for p in model.parameters()]


def assert_same(got, wanted):
    for g, w in zip(got, wanted, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-4)


@chunkwise
@pytest.mark.parametrize("make", [
    lambda: Listed(4, 4), compiled_in_place, lambda: torch.jit.script(nn.Linear(4, 4)),
    lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
], ids=["listed", "compiled in place", "scripted", "compiled"])  # fmt: skip
def test_parameters_that_a_module_reaches_by_another_way(memory, make):
    torch.manual_seed(0)
    layer = make()
    model = IRevStack([layer, IRevBlock(4, 3), layer, nn.Linear(4, 4)], batch_first=False)
    wanted = gradients(model, draw(), "recompute")
    assert_same(gradients(model, draw(), memory), wanted)
    layer.weight.register_hook(torch.neg)
    with pytest.raises(ValueError, match=r"a hook on a parameter of shape \(4, 4\) would run for"):
        gradients(model, draw(), memory)


@chunkwise
@pytest.mark.parametrize("training", [True, False])
def test_modules_keep_their_mode_until_the_backward_pass(memory, training):
    """Dropout if they train, the statistics of batch norm if they do not."""
    norm = "layer" if training else "batch"
    blocks = [IRevBlock(4, 3, norm=norm), Dropout(), nn.Dropout(), IRevBlock(4, 3)]
    model = IRevStack(blocks, batch_first=False).train(training)
    wanted = gradients(model, draw(), memory)
    got = gradients(model, draw(), memory, lambda: model.train(not training))
    assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


@chunkwise
@pytest.mark.parametrize("kind", [nn.Dropout, nn.ELU])
def test_a_module_that_writes_to_the_input_is_refused(memory, kind):
    module = kind(inplace=True)
    model = IRevStack([module, IRevBlock(4, 3)], memory, batch_first=False)
    with pytest.raises(ValueError, match="changed the input in place, but memory="):
        model(draw())
    with torch.no_grad():
        model(draw())
    above = IRevStack([nn.Linear(4, 4), module, IRevBlock(4, 3)], batch_first=False).eval()
    wanted = gradients(above, draw(), "recompute")
    assert_same(gradients(above, draw(), memory), wanted)


@chunkwise
def test_a_stack_made_in_inference_mode(memory):
    """Its buffers do not count how often they were written to."""
    with torch.inference_mode():
        model = IRevStack([IRevBlock(4, 3, forgets=False)], memory)
        inside, _ = model(draw())
    with torch.no_grad():
        assert torch.equal(model(draw())[0], inside)


class Picking(nn.Module):
    """A module with a parameter of integers."""

    def __init__(self):
        super().__init__()
        self.order = nn.Parameter(torch.tensor([2, 0, 1, 3]), requires_grad=False)

    def forward(self, x):
        return x[..., self.order]


@chunkwise
def test_integers_and_frozen_parameters(memory):
    torch.manual_seed(0)
    model = IRevStack([Picking(), IRevBlock(4, 3), nn.Linear(4, 4)], batch_first=False)
    model.blocks[2].requires_grad_(False)
    model.blocks[1].scale.requires_grad_(False)
    wanted = gradients(model, draw(), "recompute")
    assert_same(gradients(model, draw(), memory), wanted)
    model.requires_grad_(False)
    x = draw().requires_grad_()
    assert model(x)[0].sum().backward() is None and x.grad.isfinite().all()


@chunkwise
def test_a_batch_of_gradients_is_refused(memory):
    model = IRevRNN(4, 3, activation="identity", memory=memory)
    with pytest.raises(NotImplementedError, match=f"memory='{memory}' takes no batch of gradients"):
        torch.autograd.functional.jacobian(lambda x: model(x)[0].sum(0), draw(3), vectorize=True)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible", "auto"])
def test_a_lazy_module_must_be_initialised(memory):
    budget = "1GB" if memory == "auto" else None
    model = IRevStack([nn.LazyLinear(4), IRevBlock(4, 3)], memory, budget)
    with pytest.raises(ValueError, match=r"nn.LazyLinear, from the start; run the model once"):
        model(draw())
    with torch.no_grad():
        model.memory = "recompute"
        model(draw())
    model.memory = memory
    model(draw())[0].sum().backward()
