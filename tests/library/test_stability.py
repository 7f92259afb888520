"""Linear oscillators whose states would grow, and the couplings that are nearest to theirs."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from irevrnn import IRevBlock, IRevRNN, IRevRNNCell, IRevStack
from irevrnn.kernels import reference
from irevrnn.modules.stability import clip_couplings_


def largest_eigenvalue(u, a, b):
    rows = torch.stack((u * (1 + a * b), b, a * u, torch.ones_like(u)), -1)
    return torch.linalg.eigvals(rows.view(-1, 2, 2)).abs().amax(-1)


def draw(count=2000, size=3.0):
    generator = torch.Generator().manual_seed(0)
    u = 2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1
    u[:3] = torch.tensor([1.0, -1.0, 0.0])
    a, b = size * torch.randn(2, count, generator=generator, dtype=torch.float64)
    return u, a, b


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3.0, 300.0])  # products of these overflow in float16
def test_no_eigenvalue_exceeds_1(dtype, size):
    u, a, b = (x.to(dtype) for x in draw(size=size))
    u[-500:] = torch.linspace(-1, -0.99, 500).to(dtype)
    assert (largest_eigenvalue(u.double(), a.double(), b.double()) > 1.01).any()  # the control
    clip_couplings_(u, a, b)
    product = u.double() * a.double() * b.double()
    assert (-2 * (1 + u.double()) <= product).all() and (product <= 0).all()
    # A double eigenvalue at 1 is found to half the digits.
    assert largest_eigenvalue(u.double(), a.double(), b.double()).max() < 1 + 1e-6
    moved = product < -(1 + u.double())  # most of them are at the bound, but for rounding
    near = product / (-2 * (1 + u.double()))
    assert near[moved].median() > 1 - 4 * torch.finfo(dtype).eps - 1e-5


@pytest.mark.parametrize("a, b", [(0.1, 0.1), (0.1, -0.1)])
def test_recurrent_weights_beyond_1_leave_couplings_finite(a, b):
    block = IRevBlock(4, 3)
    with torch.no_grad():
        block.recurrent_weight.copy_(torch.tensor([-1.01, -3.0, 1.01]))
        block.coupling_a.fill_(a)
        block.coupling_b.fill_(b)
    IRevStack([block]).clip_recurrent_weights_(1.02)
    assert block.recurrent_weight.tolist() == pytest.approx([-1.01, -1.02, 1.01])
    assert (block.coupling_a * block.coupling_b)[0, :2].tolist() == [0, 0]
    for coupling, start in ((block.coupling_a, a), (block.coupling_b, b)):
        assert (coupling.abs() <= abs(start)).all()


def test_couplings_that_are_stable_stay():
    u, a, b = draw()
    stable = (-2 * (1 + u) < u * a * b) & (u * a * b < 0)
    kept_a, kept_b = a[stable].clone(), b[stable].clone()
    clip_couplings_(u, a, b)
    assert torch.equal(a[stable], kept_a) and torch.equal(b[stable], kept_b)
    assert 0.2 < stable.float().mean() < 0.8


def test_the_matrix_is_that_of_a_step():
    u, a, b = draw(50)
    h, c = torch.randn(2, 50, dtype=torch.float64)
    _, h_n, c_n = reference.scan(
        torch.zeros(1, 1, 50, dtype=torch.float64), h[None], c[None], u, a[None], b[None],
        "identity", "identity",
    )  # fmt: skip
    torch.testing.assert_close(h_n[0], u * (1 + a * b) * h + b * c)
    torch.testing.assert_close(c_n[0], a * u * h + c)


@pytest.mark.parametrize("model", [
    IRevStack([IRevBlock(4, 6)]), IRevStack([IRevBlock(4, 6, forgets=False)]),
    IRevRNN(4, 6, num_couplings=1, activation="identity", coupling_activation="identity"),
], ids=["stack", "u = 1", "layer"])  # fmt: skip
def test_states_do_not_grow_after_clipping(model):
    [block] = model._stack().blocks
    with torch.no_grad():
        block.coupling_a.fill_(0.1)
        block.coupling_b.fill_(0.1)
    x = torch.randn(1, 3000, 4)
    with torch.no_grad():
        assert not model(x)[1][0].abs().max() < 1e3  # the control
        model.clip_recurrent_weights_()
        assert model(x)[1][0].abs().max() < 1e3


def test_weights_that_are_computed_cannot_be_clipped():
    model = IRevRNN(3, 4, 2)
    prune.identity(model.layers[1], "coupling_a")
    model.clip_recurrent_weights_()  # a coupling that need not be moved
    parametrize.register_parametrization(model.layers[1], "recurrent_weight", nn.Tanh())
    with pytest.raises(ValueError, match=r"layers\.1\.recurrent_weight cannot be clipped in place"):
        model.clip_recurrent_weights_()
    stack = IRevStack([nn.Linear(3, 4), IRevBlock(4, 6)])
    prune.identity(stack.blocks[1], "coupling_b")
    with pytest.raises(ValueError, match=r"blocks\.1\.coupling_b cannot be clipped"):
        stack.clip_recurrent_weights_()


@pytest.mark.parametrize("options", [
    {"num_couplings": 2}, {"num_couplings": 0}, {"activation": "leaky_relu"},
    {"coupling_activation": "tanh"},
], ids=str)  # fmt: skip
def test_other_recurrences_keep_their_couplings(options):
    model = IRevStack([IRevBlock(4, 6, longest_period=None, **options)])
    [block] = model.blocks
    with torch.no_grad():
        block.coupling_a.fill_(0.5)
        block.coupling_b.fill_(0.5)
    model.clip_recurrent_weights_()
    assert block.coupling_a.eq(0.5).all() and block.coupling_b.eq(0.5).all()


KINDS = {
    "stack": lambda: IRevStack([nn.Linear(3, 4), IRevBlock(4, 6)]),
    "compiled": lambda: IRevStack([nn.Linear(3, 4), torch.compile(IRevBlock(4, 6))]),
    "both directions": lambda: IRevRNN(3, 6, 2, bidirectional=True),
    "cell": lambda: IRevRNNCell(3, 6),
    "block": lambda: IRevBlock(4, 6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_that_clips(kind):
    module = KINDS[kind]()
    weights = [p for name, p in module.named_parameters() if name.endswith("recurrent_weight")]
    for u in weights:
        nn.init.constant_(u, 2.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    assert module.clip_recurrent_weights_(0.9, after=optimizer) is module
    assert weights and all(u.eq(0.9).all() for u in weights)
    for u in weights:
        u.grad = torch.full_like(u, -5.0)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        copied.step()  # of copies of the parameters
    optimizer.step()
    assert all(u.eq(0.9).all() for u in weights)


def test_a_negative_bound():
    with pytest.raises(ValueError, match="bound must be at least 0; got -1"):
        IRevRNN(3, 4).clip_recurrent_weights_(-1)
