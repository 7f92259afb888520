"""The projection gives what ``nn.Linear`` gives, and its gradients."""

import pytest
import torch
from torch import nn

from irevrnn.kernels.allocator import empty_cache
from irevrnn.modules import projection
from irevrnn.modules.projection import Projection

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    monkeypatch.setattr(projection, "uses_caching_allocator", lambda: False)  # as others may have
    monkeypatch.setattr(projection, "_prefers_onednn", lambda: False)


@pytest.fixture(params=[False, True], ids=["MKL", "oneDNN"])
def onednn(request, monkeypatch):
    """Whether oneDNN multiplies, whichever library is the faster here."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch has no oneDNN here")
    monkeypatch.setattr(projection, "_prefers_onednn", lambda: request.param)
    return request.param


@pytest.fixture
def always(monkeypatch):
    """Products of every size do not stay with PyTorch."""
    monkeypatch.setattr(projection, "_LARGE", 0)


def pair(inputs, outputs, bias=True):
    """A projection, and nn.Linear with the same parameters."""
    ours, theirs = Projection(inputs, outputs, bias), nn.Linear(inputs, outputs, bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def derived(model, x):
    """Result, gradients, and gradients of a penalty on the gradient of the input."""
    x = x.clone().requires_grad_()
    y, of = model(x), [x, *model.parameters()]
    first = torch.autograd.grad(y.sin().sum(), of, create_graph=True)
    return [y, *first, *torch.autograd.grad(first[0].square().sum(), of)]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape, outputs",
    [((70, 33, 40), 37), ((1, 4096, 1), 129), ((2500, 130), 5), ((3, 5, 7), 9)],
)
def test_values_and_gradients_of_any_order(shape, outputs, bias, onednn):
    ours, theirs = pair(shape[-1], outputs, bias)
    x = torch.randn(shape)
    assert onednn or torch.equal(ours(x), theirs(x))
    if len(shape) == 3:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    for got, wanted in zip(derived(ours, x), derived(theirs.double(), x.double()), strict=True):
        bound = 1e-5 * max(1, wanted.abs().max().item())
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=bound)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_frozen_parameters_get_no_gradient(frozen, onednn):
    gradients = []
    for model in pair(6, 5):
        torch.manual_seed(1)
        model.get_parameter(frozen).requires_grad_(False)
        model(torch.randn(9, 6)).sin().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0][frozen] is None and gradients[1][frozen] is None
    (got,), (wanted,) = ([g for g in each.values() if g is not None] for each in gradients)
    torch.testing.assert_close(got, wanted)


def test_rows_do_not_depend_on_how_many_there_are(onednn):
    """A chunk's projection has the bits of the whole sequence's: strategies rely on it."""
    ours, _ = pair(100, 128)
    x = torch.randn(784, 32, 100)
    whole = ours(x)
    for steps in (28, 29, 100):
        assert torch.equal(torch.cat([ours(part) for part in x.split(steps)]), whole)


def test_large_results_lie_where_the_ones_before_lay():
    ours, _ = pair(64, 64)
    x, grad = torch.randn(2**15, 64, requires_grad=True), torch.randn(2**15, 64)
    empty_cache()
    places = []
    for _ in range(3):
        x.grad = None
        y = ours(x)
        y.backward(grad)
        places.append((y.data_ptr(), x.grad.data_ptr()))
        del y
    assert set(places[1]) == set(places[2]) == set(places[0])


def test_what_stays_with_pytorch(monkeypatch):
    ours, theirs = pair(64, 64)
    x = torch.randn(2**15, 64)
    monkeypatch.setattr(projection, "allocate", None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x)) and ours(x).dtype == torch.bfloat16
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))
    monkeypatch.setattr(projection, "uses_caching_allocator", lambda: True)
    assert torch.equal(ours.float()(x), theirs.float()(x))
