"""The compiled operator of a gated block: against PyTorch's in float64."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from irevrnn import IRevStack
from irevrnn.modules import fused
from irevrnn.modules.fused import block_output
from irevrnn.modules.gated_block import IRevBlock
from irevrnn.modules.projection import Projection
from tests.cases import assert_same_bits, assert_same_with_any_threads

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [(1,), (7, 3), (100, 2), (0, 3), (40, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
widths = pytest.mark.parametrize(("width", "hidden"), [(1, 3), (3, 1), (16, 5), (33, 64), (64, 33)])


class Output(nn.Module):
    def __init__(self, width, hidden, bias=True):
        super().__init__()
        torch.manual_seed(width + hidden)
        self.projection = Projection(hidden, 2 * width, bias)

    def forward(self, h, x=None):
        return block_output(self.projection, h, x)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def derived(module, *inputs):
    """Result and gradients of inputs and parameters."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = module(*inputs)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype)
    leaves = [*inputs, *module.parameters()]
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream, materialize_grads=True)]


def assert_near_float64(monkeypatch, module, *inputs):
    """No more than three times the error of PyTorch's operators."""
    exact = derived(copy.deepcopy(module).double(), *(x.double() for x in inputs))
    ours = derived(module, *inputs)
    monkeypatch.setattr(fused, "can_fuse", lambda *_: False)
    eager = derived(module, *inputs)
    for got, other, wanted in zip(ours, eager, exact, strict=True):
        size = 1 + (wanted.abs().max().item() if wanted.numel() else 0)
        error = max([0.0, *(other - wanted).abs().flatten().tolist()])
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=3 * error + 4e-6 * size)


def count_fused(monkeypatch):
    """Count the calls of the compiled operator."""
    calls, run = [], torch.ops.irevrnn.block_output.default

    def counted(*arguments):
        calls.append(run)
        return run(*arguments)

    monkeypatch.setattr(torch.ops.irevrnn, "block_output", SimpleNamespace(default=counted))
    return calls


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@shapes
@widths
def test_output(monkeypatch, width, hidden, shape, residual, bias):
    inputs = [draw(*shape, hidden), *([draw(*shape, width)] if residual else [])]
    assert_near_float64(monkeypatch, Output(width, hidden, bias), *inputs)


def test_extreme_and_missing_numbers():
    """Of the gate, whose projection passes h on: for a >= 10, GELU does, too."""
    module = Output(1, 2)
    with torch.no_grad():
        module.projection.weight.copy_(torch.eye(2))
        module.projection.bias.copy_(torch.tensor([0.0, -100.0]))
    g = torch.tensor([10.0, 50.0, 99.0, 100.0, 150.0, 300.0, torch.nan])
    h = torch.stack([torch.full_like(g, 10.0), g], -1).requires_grad_()
    y = module(h)
    torch.testing.assert_close(y[:, 0], 10 * torch.sigmoid(g - 100), equal_nan=True)
    (gradient,) = torch.autograd.grad(y.sum(), h)
    assert torch.isfinite(gradient[:6]).all() and gradient[6].isnan().all()


def test_any_number_of_threads_gives_the_same_sums():
    module, inputs = Output(33, 8), (draw(5000, 8), draw(5000, 33))
    assert_same_with_any_threads(lambda: derived(module, *inputs)[-1])  # of the bias


def test_second_derivatives_of_a_block_that_reads_its_own_output():
    """Its input depends on its weights, and gradients must not pass through these twice."""
    block = IRevBlock(4, 3)

    def derivatives(block, x):
        output, _ = IRevStack([block, block])(x)
        of = list(block.parameters())
        first = torch.autograd.grad(output.square().sum(), of, create_graph=True)
        return *first, *torch.autograd.grad(sum(g.square().sum() for g in first), of)

    exact = derivatives(copy.deepcopy(block).double(), draw(2, 9, 4).double())
    for got, wanted in zip(derivatives(block, draw(2, 9, 4)), exact, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


def test_transforms_and_compilation():
    module, h, x = Output(4, 3), draw(6, 3), draw(6, 4)
    expected = module(h, x)
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.func.vmap(module)(h, x), expected, **near)
    torch.func.jvp(module, (h, x), (h, x))
    exported = torch.export.export(module, (h, x)).module()
    torch.testing.assert_close(exported(h, x), expected, **near)


@pytest.mark.parametrize(("change", "fused"), [
    (lambda b: b.output_projection.register_forward_hook(lambda *_: None), 0),
    (lambda b: setattr(b, "output_projection", nn.Linear(6, 16)), 0),
    (lambda b: nn.utils.parametrizations.weight_norm(b.output_projection), 0),
    (lambda b: setattr(b, "dropout", nn.Dropout(0.0)), 1),
], ids=["hook", "layer", "parametrization", "dropout"])  # fmt: skip
def test_what_users_put_into_a_block_is_called(monkeypatch, change, fused):
    block, x = IRevBlock(8, 6), draw(20, 2, 8)
    start = block.output_projection.state_dict()
    expected, calls = IRevStack([block])(x)[0], count_fused(monkeypatch)
    change(block)
    if type(block.output_projection) is nn.Linear:
        block.output_projection.load_state_dict(start)
    torch.testing.assert_close(IRevStack([block])(x)[0], expected)
    assert len(calls) == fused


def test_a_backward_pass_under_autocast_is_in_full_precision():
    module, x = Output(16, 5), draw(7, 5)
    wanted = derived(module, x)
    y = module(x.requires_grad_())
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.autograd.grad(y, [x, *module.parameters()], upstream)
    assert_same_bits(got, wanted[1:])
