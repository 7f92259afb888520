"""Mixed precision: bfloat16 and float16 around a state in float32, and how accurate that is."""

import copy

import pytest
import torch
from torch import nn

from irevrnn import IRevBlock, IRevRNN, IRevStack, scan
from irevrnn.strategies.rules import STRATEGIES
from irevrnn.strategies.strategy import Plan
from tests.cases import assert_same_bits, make_inputs, run

HALVES = (torch.bfloat16, torch.float16)
#: Relative errors of outputs and gradients that docs/training.md states.
BOUNDS = {torch.bfloat16: (0.01, 0.03), torch.float16: (0.001, 0.005), None: (1e-4, 1e-3)}
of_a_half = pytest.mark.parametrize("dtype", HALVES, ids=["bfloat16", "float16"])
forward_in_time = pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint"])


def error(got, wanted):
    """Relative to the norm of the whole tensor."""
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


def outcome(model, x, autocast=None, scale=1.0):
    """Output, and gradients of the mean of its squares; ``scale`` as a GradScaler would choose."""
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        output, _ = model(x)
    loss = scale * output.square().mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return output.detach(), [g / scale for g in gradients]


def errors(got, wanted):
    worst = max(error(g, w) for g, w in zip(got[1], wanted[1], strict=True))
    return error(got[0], wanted[0]), worst


def make_model(memory="recompute", norm="layer"):
    torch.manual_seed(0)
    return IRevRNN(1, 64, 2, norm=norm, memory=memory)


# --- half-precision tensors and modules --------------------------------------------------------


@of_a_half
@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
def test_scan_computes_in_float32(kernels, monkeypatch, backend, memory, dtype):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case = [x.detach().to(dtype).requires_grad_() for x in make_inputs(40, 2, 9, 3, torch.float32)]
    wide = [x.detach().float().requires_grad_() for x in case]
    got, wanted = run(scan, case, memory=memory), run(scan, wide, memory=memory)
    assert all(x.dtype == dtype for x in got)
    for index in range(3):
        assert torch.equal(got[index], wanted[index].to(dtype))
    for x, y in zip(got[3:], wanted[3:], strict=True):  # upstream gradients are rounded as well
        assert error(x, y) < 8 * torch.finfo(dtype).eps


@of_a_half
def test_states_may_stay_in_float32(kernels, dtype):
    """So a sequence in pieces is the whole to the last bit."""
    z, *rest = (x.detach().to(dtype) for x in make_inputs(40, 2, 9, 3, torch.float32))
    h, c, *weights = rest
    h, c = h.float(), c.float()
    whole = scan(z, h, c, *weights)
    assert [y.dtype for y in whole] == [dtype, torch.float32, torch.float32]
    outs = []
    for part in z.split(15):
        out, h, c = scan(part, h, c, *weights)
        outs.append(out)
    for got, want in zip((torch.cat(outs), h, c), whole, strict=True):
        assert torch.equal(got, want)


def test_autocast_does_not_cast_double_precision(kernels):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="input must have"):
        IRevRNN(3, 4)(torch.randn(2, 5, 3, dtype=torch.float64))


@of_a_half
@forward_in_time
def test_a_converted_model(kernels, memory, dtype):
    """Against float64 with the same, rounded, weights: the errors are those of the projection."""
    model = make_model(memory, norm=None).to(dtype)
    exact = copy.deepcopy(model).double()
    x = torch.rand(8, 784, 1).to(dtype)
    output, (h_n, c_n) = model(x)
    assert output.dtype == h_n.dtype == c_n.dtype == dtype
    wanted, (_, c_wanted) = exact(x.double())
    assert error(output, wanted) < BOUNDS[dtype][0]
    assert error(c_n, c_wanted) < BOUNDS[dtype][0]


@of_a_half
def test_the_gradients_of_chunks_are_added_up_in_float32(kernels, dtype):
    model = IRevRNN(3, 8, activation="tanh", memory="checkpoint")
    model._choose = lambda *_: Plan("checkpoint", 4)  # 1000 chunks
    x, results = torch.rand(1, 4000, 3), []
    for kind in (dtype, torch.float32):
        model = model.to(dtype).to(kind)  # the same values
        loss = 2.0**10 * model(x.to(dtype).to(kind))[0].float().mean()  # enough for float16
        results.append(torch.autograd.grad(loss, [*model.parameters()]))
    assert all(g.dtype == dtype for g in results[0])
    assert max(error(g, w) for g, w in zip(*results, strict=True)) < BOUNDS[dtype][1]


@of_a_half
@pytest.mark.parametrize("memory", ["recompute", "checkpoint"])
def test_a_converted_norm_adds_up_its_gradient_in_float32(kernels, memory, dtype):
    """PyTorch's own, on the CPU, stops growing once it is some hundred times as large as a term."""
    model = IRevStack([IRevBlock(8, 8), IRevBlock(8, 8)], memory)
    x, upstream = torch.randn(4, 3000, 8), torch.randn(4, 3000, 8) + 1
    results = []
    for kind in (dtype, torch.float32):
        model = copy.deepcopy(model).to(dtype).to(kind)  # the same values
        output, _ = model(x.to(dtype).to(kind))
        norms = [p for block in model.blocks for p in block.norm.parameters()]
        results.append(torch.autograd.grad(output, norms, upstream.to(dtype).to(kind)))
    bound = 8 * torch.finfo(dtype).eps
    assert max(error(g, w) for g, w in zip(*results, strict=True)) < bound


@pytest.mark.parametrize("memory", ["reversible", "store_fixed"])
def test_fixed_point_takes_no_converted_model(kernels, memory):
    model = IRevRNN(1, 8, activation="identity", memory=memory, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=f"{memory}.*torch.bfloat16.*memory='checkpoint'"):
        model(torch.rand(2, 10, 1, dtype=torch.bfloat16))


# --- autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("memory", [each for each in STRATEGIES if each != "auto"])
@pytest.mark.parametrize("norm", [None, "layer"])
def test_accuracy_of_autocast(kernels, memory, norm, dtype):
    """Two layers of 64 over 784 steps, as in docs/training.md; without autocast for None."""
    model, x = make_model(memory, norm), torch.rand(8, 784, 1)
    wanted = outcome(make_model(norm=norm).double(), x.double())  # by recompute
    scale = 2.0**10  # a mean over 400,000 numbers has gradients that float16 would round to 0
    of_output, of_gradients = errors(outcome(model, x, dtype, scale), wanted)
    print(f"{memory} {norm} {dtype}: output {of_output:.1e}, gradients {of_gradients:.1e}")
    assert of_output < BOUNDS[dtype][0]
    assert of_gradients < BOUNDS[dtype][1]


@of_a_half
@forward_in_time
def test_training_with_a_gradient_scaler(kernels, memory, dtype):
    model = IRevRNN(1, 16, num_couplings=2, memory=memory, norm="layer")
    head = nn.Linear(16, 2)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)  # overflows in float16 at first
    losses, skipped = [], 0
    for _ in range(100):
        labels = torch.randint(0, 2, (32,))
        x = 0.1 * torch.randn(32, 10, 1)
        x[:, 0, 0] = 2.0 * labels - 1  # the answer is shown first
        with torch.autocast("cpu", dtype):
            output, _ = model(x, return_sequence=False)
            loss = nn.functional.cross_entropy(head(output).float(), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < before
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]
    assert all(torch.isfinite(p).all() for p in parameters)
    assert (skipped > 0) == (dtype == torch.float16)


# --- float32 products in bfloat16 -----------------------------------------------------------------


def test_reversal_is_exact_with_products_of_less_precision(kernels):
    """Where the processor has no such products, these are those of float32."""
    model, x = IRevStack([nn.Linear(1, 64), IRevBlock(64, 64)]), torch.randn(4, 500, 1)
    before, results = torch.get_float32_matmul_precision(), []
    torch.set_float32_matmul_precision("medium")
    try:
        for model.memory in ("reversible", "store_fixed"):
            output, _ = model(x)
            loss = output.square().mean()
            results.append([output, *torch.autograd.grad(loss, list(model.parameters()))])
    finally:
        torch.set_float32_matmul_precision(before)
    assert_same_bits(*results)
