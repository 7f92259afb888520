"""Modules and tensors that do something unusual: in place, by subclasses, outside of PyTorch."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from irevrnn import Block, IRevBlock, IRevRNN, IRevStack, check_stepwise
from tests.cases import assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
chunkwise = pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
every = pytest.mark.parametrize("memory", ["recompute", "checkpoint", "reversible"])


def draw(steps=150, features=4):
    return torch.randn(2, steps, features, generator=torch.Generator().manual_seed(1))


def outcome(model, x, **options):
    """Output, final states, and the gradients of all parameters."""
    output, states = model(x, **options)
    loss = output.abs().square().mean()
    return [output, *states, *torch.autograd.grad(loss, list(model.parameters()))]


class Plain(Block):
    """A block that returns the output of its recurrence."""

    def __init__(self):
        super().__init__(8)
        self.inner = nn.Linear(4, 8)

    def project(self, x):
        return self.inner(x)

    def output(self, x, h):
        return h


@every
def test_work_in_place_on_the_last_output_leaves_states_alone(memory, monkeypatch):
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 32)
    results = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = IRevStack([Plain(), nn.ReLU(inplace), nn.Linear(8, 2)], memory)
        results.append(outcome(model, draw(), return_sequence=False))
    assert_same_bits(*results)


@chunkwise
def test_other_parameters_of_a_compiled_module(memory):
    """In the backward pass it has its own again, which must not be taken for those."""
    compiled = torch.compile(nn.Linear(4, 4), backend="eager")
    model = IRevStack([compiled, IRevBlock(4, 3)], memory)
    other = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    output, _ = functional_call(model, other, (draw(),))
    found = torch.autograd.grad(output.square().mean(), list(other.values()))
    model.memory = "recompute"
    output, _ = functional_call(model, other, (draw(),))
    for got, wanted in zip(
        found, torch.autograd.grad(output.square().mean(), list(other.values())), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in model.parameters())


class Subclass(torch.Tensor):
    pass


class OwnParameter(nn.Parameter):
    pass


@every
def test_tensors_of_a_subclass(memory):
    model = IRevStack([nn.Linear(4, 16), IRevBlock(16, 32), IRevBlock(16, 32)], memory)
    wanted = outcome(model, draw())
    own = copy.deepcopy(model)
    own.blocks[1].scale = OwnParameter(own.blocks[1].scale.detach())
    for got in (outcome(model, draw().as_subclass(Subclass)), outcome(own, draw())):
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one.as_subclass(torch.Tensor), other, rtol=1e-3, atol=1e-5)


class BatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(x.flatten(0, -2)).view_as(x)


def test_batch_statistics_above_the_last_recurrence_are_of_all_steps():
    model = IRevStack([IRevBlock(4, 8), BatchNorm()])
    whole = model(draw())[0][:, -1]
    assert torch.equal(model(draw(), return_sequence=False)[0], whole)
    packed, _ = model(draw(), return_sequence=False, lengths=[150, 150])
    torch.testing.assert_close(packed, whole)


class Conjugate(nn.Module):
    def forward(self, x):
        return torch.complex(x, 2 * x).conj()


def test_a_conjugate_output():
    model = IRevStack([IRevBlock(4, 3), Conjugate()])
    wanted = outcome(model, draw())
    model.memory = "reversible"
    for one, other in zip(outcome(model, draw()), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_traced_module_is_pickled_after_a_call_with_a_budget():
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    model = IRevStack([traced, IRevBlock(4, 3)], "auto", "1GB")
    output, _ = model(draw())
    assert torch.equal(pickle.loads(pickle.dumps(model))(draw())[0], output)


class FunctionalDropout(nn.Linear):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.2, self.training)


def test_a_module_that_draws_by_itself_is_not_said_to_mix_steps():
    module = FunctionalDropout(4, 4)
    with pytest.raises(ValueError, match=r"draws random numbers, .* call eval\(\)"):
        check_stepwise(module, draw().transpose(0, 1))
    check_stepwise(module.eval(), draw().transpose(0, 1))


@pytest.mark.parametrize("make", [lambda: IRevRNN(4, 3), lambda: IRevStack([IRevBlock(4, 3)])])
def test_a_copy_of_a_model_that_was_compiled_in_place_has_weights_of_its_own(make):
    model = make()
    model.compile(backend="eager")
    twin = copy.deepcopy(model)
    torch.testing.assert_close(outcome(twin, draw()), outcome(model, draw()))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert not torch.equal(twin(draw())[0], model(draw())[0])
    assert_same_bits(outcome(pickle.loads(pickle.dumps(twin)), draw()), outcome(twin, draw()))


class Counts(nn.Module):
    """A module that keeps a state."""

    calls = [0]

    def forward(self, x):
        self.calls[0] += 1
        return x * torch.tensor([self.calls[0], 1, 1, 1])


@pytest.mark.parametrize("length", [20, 150], ids=["a single chunk", "chunks"])
def test_a_checkpoint_that_leads_elsewhere_is_an_error(length, monkeypatch):
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 32)
    output, _ = IRevStack([Counts(), IRevBlock(4, 3)], "checkpoint")(draw(length))
    with pytest.raises(RuntimeError, match="chunk 0: .* keeps a state"):
        output.sum().backward()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4, sparse=True)

    def forward(self, x):
        return self.embedding(x.squeeze(-1).long())


def test_a_budget_goes_with_sparse_gradients():
    model = IRevStack([Tokens(), IRevBlock(4, 3)], "auto", memory_budget="1GB")
    model(torch.ones(2, 50, 1))[0].sum().backward()
    assert model.blocks[0].embedding.weight.grad.is_sparse


class OneHot(nn.Linear):
    def forward(self, x):
        return super().forward(F.one_hot(x.squeeze(-1).long(), 10).float())


class Doubled(IRevBlock):
    def output(self, x, h):
        return super().output(x, h).repeat_interleave(2, -1)


def test_subclasses_may_have_other_widths():
    model = IRevStack([OneHot(10, 4), Doubled(4, 3), nn.Linear(8, 2)])
    assert model(torch.ones(2, 30, 1))[0].shape == (2, 30, 2)
