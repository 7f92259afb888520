"""The projection gives what ``nn.Linear`` gives, and its gradients."""

import pytest
import torch
from torch import nn

from experiments.process import threads
from irevrnn.allocator import empty_cache
from irevrnn.modules import projection
from irevrnn.modules.projection import Projection, _parts, _worthwhile, linear
from irevrnn.ops import load_operators


def onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=["oneDNN", "MKL"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either of the products, whichever is the faster here."""
    by_onednn = request.param == "oneDNN"
    if by_onednn and not onednn():
        pytest.skip("PyTorch has no oneDNN here")
    monkeypatch.setattr(
        projection, "uses_caching_allocator", lambda: False
    )  # as other tests may have
    monkeypatch.setattr(projection, "_onednn_is_faster", lambda: by_onednn)


@pytest.fixture(params=[7, 2048])
def always(request: pytest.FixtureRequest, product: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of every size go there, where they are copied in parts of this number of rows."""
    monkeypatch.setattr(projection, "_WORTHWHILE", 0)
    monkeypatch.setattr(projection, "_LARGE", 0)
    monkeypatch.setattr(projection, "_ROWS", request.param)


def pair(inputs: int, outputs: int, bias: bool) -> tuple[Projection, nn.Linear]:
    torch.manual_seed(0)
    ours, exact = Projection(inputs, outputs, bias), nn.Linear(inputs, outputs, bias)
    exact.load_state_dict(ours.state_dict())
    return ours, exact.double()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape, outputs",
    [((70, 33, 40), 37), ((1, 4096, 1), 129), ((2500, 130), 5), ((3, 5, 7), 9)],
)
def test_value_and_gradients(shape: tuple[int, ...], outputs: int, bias: bool) -> None:
    ours, exact = pair(shape[-1], outputs, bias)
    x = torch.randn(shape, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    y, expected = ours(x), exact(wide)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad.double())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=0, atol=1e-5)
    for mine, other in zip(ours.parameters(), exact.parameters(), strict=True):
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=0, atol=1e-5 * scale)


@pytest.mark.usefixtures("always")
def test_input_that_is_not_contiguous_and_frozen_parameters() -> None:
    ours, exact = pair(64, 64, True)
    ours.weight.requires_grad_(False)
    x = torch.randn(64, 100, 64).transpose(0, 1).requires_grad_()
    assert _worthwhile(x, ours.weight, ours.bias)
    ours(x).square().sum().backward()
    wide = x.detach().double().requires_grad_()
    exact(wide).square().sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=0, atol=1e-4)
    assert ours.weight.grad is None and ours.bias.grad is not None


@pytest.mark.usefixtures("always")
def test_second_derivatives() -> None:
    ours, exact = pair(64, 64, True)
    x = torch.randn(100, 64)

    def penalty(model: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
        (of_weight,) = torch.autograd.grad(slope.square().sum(), model.weight)
        return of_weight

    assert _worthwhile(x, ours.weight, ours.bias)
    mine, expected = penalty(ours, x), penalty(exact, x.double())
    assert (mine - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.usefixtures("product")
def test_rows_do_not_depend_on_how_many_there_are() -> None:
    """A chunk's projection has the bits of the whole sequence's: strategies rely on it."""
    ours, _ = pair(100, 128, True)
    x = torch.randn(784, 32, 100)
    whole = ours(x)
    for steps in (28, 29, 100):
        assert torch.equal(torch.cat([ours(part) for part in x.split(steps)]), whole)


@pytest.mark.usefixtures("product")
def test_small_products_and_other_dtypes_stay_with_pytorch() -> None:
    ours, _ = pair(64, 64, True)
    assert not _worthwhile(torch.randn(3, 64), ours.weight, ours.bias)
    large = torch.randn(2**15, 64)
    assert _worthwhile(large, ours.weight, ours.bias)
    assert not _worthwhile(large.double(), ours.weight, ours.bias)
    assert not _worthwhile(large.flatten(), nn.Parameter(torch.randn(64, large.numel())), ours.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(large).dtype == torch.bfloat16


@pytest.mark.skipif(not onednn(), reason="PyTorch has no oneDNN here")
@pytest.mark.parametrize("vendor, capability, expected", [
    ("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False),
    ("GenuineIntel", "AVX512", False),
])  # fmt: skip
def test_onednn_multiplies_where_mkl_leaves_vectors_unused(
    vendor: str, capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "_processor", lambda: f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert projection._onednn_is_faster_here.__wrapped__() is expected


def test_parts_have_the_same_rows_but_for_one() -> None:
    """A part of a row or two would be multiplied differently, and round differently."""
    x = torch.randn(4101, 5)  # 5 rows more than two parts have
    with threads(1):
        parts = _parts(x)
    assert [len(part) for part in parts] == [1367, 1367, 1367]
    assert torch.equal(torch.cat(parts), x)
    with threads(2):
        assert [len(part) for part in _parts(x)] == [2051, 2050]
    assert [len(part) for part in _parts(x[:0])] == [0]


@pytest.mark.usefixtures("product")
def test_a_caching_allocator_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair(64, 64, True)
    x, grad = torch.randn(2**15, 64, requires_grad=True), torch.randn(2**15, 64)
    ours(x).backward(grad)
    wanted = [x.grad, *(p.grad for p in ours.parameters())]
    monkeypatch.setattr(projection, "uses_caching_allocator", lambda: True)
    monkeypatch.setattr(projection, "allocate", None)
    x.grad = ours.weight.grad = ours.bias.grad = None
    ours(x).backward(grad)
    for mine, other in zip([x.grad, *(p.grad for p in ours.parameters())], wanted, strict=True):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.skipif(not load_operators(), reason="the C++ kernels cannot be built")
@pytest.mark.usefixtures("product")
def test_large_results_lie_where_the_ones_before_lay() -> None:
    ours, _ = pair(64, 64, True)
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


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "bias", [torch.randn(18)[::2], torch.ones(1).expand(9)], ids=["strided", "expanded"]
)
def test_a_bias_that_is_not_contiguous(bias: torch.Tensor) -> None:
    x, weight = torch.randn(70, 33), torch.randn(9, 33)
    assert torch.equal(linear(x, weight, bias), linear(x, weight, bias.clone().contiguous()))
