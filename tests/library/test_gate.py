"""The gate at the end of a block: against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from irevrnn.modules.gate import gate
from irevrnn.modules.gated_block import IRevBlock

pytestmark = pytest.mark.usefixtures("kernels")


def draw(shape, width, residual):
    torch.manual_seed(width)
    v = 3 * torch.randn(*shape, 2 * width, dtype=torch.float64)
    return v, torch.randn(*shape, width, dtype=torch.float64) if residual else None


def with_gradients(function, v, x, upstream):
    inputs = [t.clone().requires_grad_() for t in (v, x) if t is not None]
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, upstream)]


def composite(v, x=None):
    return F.glu(v) if x is None else F.glu(v) + x


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shape", [(1,), (7, 3), (100, 2), (0, 3), ()], ids=str)
@pytest.mark.parametrize("width", [1, 3, 16, 33, 64])
def test_values_and_gradients(shape, width, residual):
    v, x = draw(shape, width, residual)
    upstream = torch.randn(*shape, width, dtype=torch.float64)
    exact = with_gradients(composite, v, x, upstream)
    ours = with_gradients(gate, v.float(), None if x is None else x.float(), upstream.float())
    for y, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=2e-6)


def test_extreme_and_missing_numbers():
    g = torch.tensor([-torch.inf, -200.0, -50.0, 0.0, 50.0, torch.inf, torch.nan])
    v = torch.cat([torch.ones_like(g), g]).requires_grad_()
    y = gate(v)
    torch.testing.assert_close(y, F.glu(v), equal_nan=True)
    (gradient,) = torch.autograd.grad(y.sum(), v)
    assert torch.isfinite(gradient[:6]).all() and gradient[13].isnan()


def test_layouts_that_are_not_contiguous():
    v, x = (t.float() for t in draw((9, 4), 5, True))
    expected = gate(v, x)
    turned = gate(v.transpose(0, 1), x.transpose(0, 1))
    assert torch.equal(turned.transpose(0, 1), expected)
    wide = torch.empty(9, 4, 20)[..., ::2]
    wide.copy_(v)
    assert torch.equal(gate(wide, x), expected)


def test_a_row_by_itself_and_any_number_of_threads_give_the_same_bits():
    v, x = (t.float() for t in draw((3000,), 33, True))
    y, threads = gate(v, x), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(gate(v, x), y)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(gate(v[7:8], x[7:8]), y[7:8])


def test_second_derivatives():
    v, x = (t.float() for t in draw((4,), 3, True))

    def penalty(function, dtype):
        inputs = [t.to(dtype).requires_grad_() for t in (v, x)]
        first = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    for ours, exact in zip(
        penalty(gate, torch.float32), penalty(composite, torch.float64), strict=True
    ):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-4)


def test_transforms_and_compilation():
    v, x = (t.float() for t in draw((4,), 3, True))
    expected = composite(v, x)
    torch.testing.assert_close(torch.func.vmap(gate)(v, x), expected)
    (tangent,) = torch.func.jvp(lambda v: gate(v, x), (v,), (v,))[1:]
    torch.testing.assert_close(tangent, torch.func.jvp(lambda v: composite(v, x), (v,), (v,))[1])
    exported = torch.export.export(_Gated(), (v, x)).module()
    torch.testing.assert_close(exported(v, x), expected)


class _Gated(torch.nn.Module):
    def forward(self, v, x):
        return gate(v, x)


@pytest.mark.parametrize("v", [torch.randn(3, 5), torch.randn(4, 6)])
def test_shapes_that_do_not_fit(v):
    with pytest.raises((RuntimeError, ValueError)):
        gate(v, torch.randn(3, 3))


def test_a_block_with_layers_of_the_users():
    """A projection that takes no scale, and a dropout of PyTorch's."""
    block = IRevBlock(8, 6)
    x = torch.randn(20, 2, 8)
    expected = block(x)
    plain = torch.nn.Linear(8, 6)
    plain.load_state_dict(block.input_projection.state_dict())
    block.input_projection, block.dropout = plain, torch.nn.Dropout(0.0)
    torch.testing.assert_close(block(x), expected)
