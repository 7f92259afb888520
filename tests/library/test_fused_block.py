"""The compiled operators of a gated block: against PyTorch's in float64."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from irevrnn import IRevStack
from irevrnn.modules import fused_block, projection
from irevrnn.modules.fused_block import block_input, block_output
from irevrnn.modules.gated_block import IRevBlock
from irevrnn.modules.projection import Projection
from tests.cases import assert_same_bits, assert_same_with_any_threads

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [(1,), (7, 3), (100, 2), (0, 3), (40, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
widths = pytest.mark.parametrize(("width", "hidden"), [(1, 3), (3, 1), (16, 5), (33, 64), (64, 33)])


class Input(nn.Module):
    def __init__(self, width, hidden, norm="layer", bias=True):
        super().__init__()
        torch.manual_seed(width + hidden)
        norms = {"layer": nn.LayerNorm(width), "bare": nn.LayerNorm(width, bias=False)}
        norms |= {"none": nn.LayerNorm(width, elementwise_affine=False), None: nn.Identity()}
        self.norm, self.projection = norms[norm], Projection(width, hidden, bias)
        self.scale = nn.Parameter(torch.rand(hidden))
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        return block_input(self.norm, self.projection, self.scale, x)


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
    monkeypatch.setattr(fused_block, "can_fuse", lambda *_: False)
    eager = derived(module, *inputs)
    for got, other, wanted in zip(ours, eager, exact, strict=True):
        size = 1 + (wanted.abs().max().item() if wanted.numel() else 0)
        error = max([0.0, *(other - wanted).abs().flatten().tolist()])
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=3 * error + 4e-6 * size)


def count_fused(monkeypatch):
    """Count the calls of the compiled operators."""
    calls = []
    for name in ("block_input", "block_output"):
        run = getattr(torch.ops.irevrnn, name).default

        def counted(*arguments, run=run):
            calls.append(run)
            return run(*arguments)

        monkeypatch.setattr(torch.ops.irevrnn, name, SimpleNamespace(default=counted))
    return calls


@pytest.mark.parametrize("norm", ["layer", "bare", "none", None])
@pytest.mark.parametrize("bias", [True, False])
@shapes
@widths
def test_input(monkeypatch, width, hidden, shape, norm, bias):
    assert_near_float64(monkeypatch, Input(width, hidden, norm, bias), draw(*shape, width))


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


def test_layouts_that_are_not_contiguous():
    before, behind = Input(5, 7), Output(5, 7)
    x, h = draw(9, 4, 5), draw(9, 4, 7)
    turned = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (x, h)]
    assert torch.equal(before(turned[0]), before(x))
    assert torch.equal(behind(turned[1], turned[0]), behind(h, x))
    wide = torch.empty(9, 4, 14)[..., ::2]
    assert torch.equal(behind(wide.copy_(h), x), behind(h, x))


def test_any_number_of_threads_gives_the_same_sums():
    module, inputs = Output(33, 8), (draw(5000, 8), draw(5000, 33))
    assert_same_with_any_threads(lambda: derived(module, *inputs)[-1])  # of the bias


@pytest.mark.parametrize("part", [Input(4, 3), Output(4, 3)], ids=["input", "output"])
def test_second_derivatives(part):
    inputs = [draw(6, 4)] if isinstance(part, Input) else [draw(6, 3), draw(6, 4)]

    def penalty(module, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        first = torch.autograd.grad(module(*leaves).square().sum(), leaves, create_graph=True)
        of = [*leaves, *module.parameters()]
        sum_ = sum(g.square().sum() for g in first)
        return torch.autograd.grad(sum_, of, materialize_grads=True, allow_unused=True)

    exact = penalty(copy.deepcopy(part).double(), torch.float64)
    for got, wanted in zip(penalty(part, torch.float32), exact, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-3)


def test_a_block_that_reads_its_own_output():
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


def test_a_batch_of_gradients():
    stack, x = IRevStack([IRevBlock(4, 3)]), draw(2, 9, 4).requires_grad_()
    output, of = stack(x)[0], [x, *stack.parameters()]
    vectors = draw(5, *output.shape)
    together = torch.autograd.grad(output, of, vectors, retain_graph=True, is_grads_batched=True)
    singly = [torch.autograd.grad(output, of, vector, retain_graph=True) for vector in vectors]
    for got, *wanted in zip(together, *singly, strict=True):
        torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-5, atol=1e-5)


def test_transforms_and_compilation():
    module, h, x = Output(4, 3), draw(6, 3), draw(6, 4)
    expected = module(h, x)
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.func.vmap(module)(h, x), expected, **near)
    torch.func.jvp(module, (h, x), (h, x))
    exported = torch.export.export(module, (h, x)).module()
    torch.testing.assert_close(exported(h, x), expected, **near)


@pytest.mark.parametrize("names", [
    ("input_projection.weight", "output_projection.weight"),
    ("input_projection.weight", "input_projection.bias", "norm.weight"),
], ids=str)  # fmt: skip
def test_frozen_parts_get_no_gradient_and_change_no_other(names):
    block, x = IRevBlock(8, 6), draw(20, 2, 8)
    frozen = copy.deepcopy(block)
    for name in names:
        frozen.get_parameter(name).requires_grad_(False)
    for each in (block, frozen):
        IRevStack([each])(x)[0].square().sum().backward()
    named = dict(block.named_parameters())
    for name, parameter in frozen.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, named[name].grad), name
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("what", ["hook", "layer", "dropout", "parametrization"])
def test_what_users_put_into_a_block_is_called(monkeypatch, what):
    block, x, seen = IRevBlock(8, 6), draw(20, 2, 8), []
    expected, calls = IRevStack([block])(x)[0], count_fused(monkeypatch)
    if what == "hook":
        block.input_projection.register_forward_hook(lambda *_: seen.append(1))
    elif what == "layer":
        block.input_projection = Observed(8, 6, seen, block.input_projection)
    elif what == "dropout":
        block.dropout = nn.Dropout(0.0)
        seen.append(1)
    else:
        nn.utils.parametrizations.weight_norm(block.input_projection)
        seen.append(1)
    torch.testing.assert_close(IRevStack([block])(x)[0], expected)
    assert seen and len(calls) == (2 if what == "dropout" else 1)


class Observed(nn.Linear):
    """A layer of a user's."""

    def __init__(self, inputs, outputs, seen, like):
        super().__init__(inputs, outputs)
        self.load_state_dict(like.state_dict())
        self.seen = seen

    def forward(self, input):
        self.seen.append(1)
        return super().forward(input)


@pytest.mark.parametrize("width", [3, 5])
def test_a_residual_of_another_shape_is_refused(width):
    with pytest.raises((ValueError, RuntimeError), match="x must have shape"):
        Output(4, 3)(draw(6, 3), draw(6, width))
    with pytest.raises((ValueError, RuntimeError), match="x must have shape"):
        Output(4, 3)(draw(6, 3), draw(width, 4))


def test_where_onednn_is_faster_it_multiplies(monkeypatch):
    block, x = IRevBlock(64, 64), draw(300, 64, 64)
    expected, calls = IRevStack([block])(x)[0], count_fused(monkeypatch)
    monkeypatch.setattr("irevrnn.modules.projection._onednn_is_faster", lambda: True)
    torch.testing.assert_close(IRevStack([block])(x)[0], expected, rtol=1e-4, atol=1e-4)
    assert not calls
    IRevStack([block])(x[:2])
    assert len(calls) == 2


def test_onednn_that_is_switched_off_is_not_used(monkeypatch):
    monkeypatch.setattr(projection, "_onednn_is_faster_here", lambda: True)
    assert projection._onednn_is_faster()
    with torch.backends.mkldnn.flags(enabled=False):
        assert not projection._onednn_is_faster()


def test_a_bias_need_not_be_contiguous():
    module, x = Output(5, 8), draw(7, 8)
    wanted = derived(module, x)
    pairs = torch.stack([module.projection.bias.detach()] * 2, 1)
    module.projection.bias = nn.Parameter(pairs[:, 0])
    assert module.projection.bias.stride() == (2,)
    assert_same_bits(derived(module, x), wanted)


def test_a_backward_pass_under_autocast_is_in_full_precision():
    for module, x in ((Input(16, 5), draw(7, 16)), (Output(16, 5), draw(7, 5))):
        wanted = derived(module, x)
        x = x.requires_grad_()
        y = module(x)
        upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).float()
        with torch.autocast("cpu", torch.bfloat16):
            got = torch.autograd.grad(y, [x, *module.parameters()], upstream)
        assert_same_bits(got, wanted[1:])


def test_the_residual_alone_may_require_a_gradient():
    module, x = Output(5, 8).requires_grad_(False), draw(7, 5).requires_grad_()
    y = module(draw(7, 8), x)
    (once,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), x)
    assert torch.equal(twice, torch.full_like(x, 2))


def test_negative_views_are_what_they_stand_for():
    module, h = Output(5, 8), draw(7, 8)
    assert torch.equal(module(torch._neg_view(-h)), module(h))
    leaf = h.clone().requires_grad_()
    y, upstream = module(leaf), draw(7, 5)
    (got,) = torch.autograd.grad(y, leaf, torch._neg_view(-upstream), retain_graph=True)
    assert torch.equal(got, *torch.autograd.grad(y, leaf, upstream))


def test_other_devices_are_refused():
    module = Output(5, 8).to("meta")
    weight, bias = module.projection.weight, module.projection.bias
    with pytest.raises(ValueError, match="h must be float32 on the CPU"):
        torch.ops.irevrnn.block_output(torch.empty(7, 8, device="meta"), weight, bias, None)
