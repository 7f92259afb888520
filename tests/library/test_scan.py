"""Every kernel against the reference, in value and gradient."""

import itertools

import pytest
import torch

from irevrnn import scan
from irevrnn.kernels import reference
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.kernels.ops import NOTHING_SAVED, SEGMENT
from irevrnn.recurrences import oscillator
from tests.cases import (
    PAIRS,
    Inputs,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    make_inputs,
    run,
)

SHAPES = [  # (T, B, H, R): one lane, odd sizes, cut tiles, whole tiles, long, no couplings
    (1, 1, 1, 1),
    (2, 3, 5, 2),
    (17, 1, 31, 3),
    (16, 2, 64, 1),
    (33, 3, 129, 3),
    (50, 5, 100, 0),
    (300, 2, 7, 5),
]
MEMORY = ["store", "recompute"]
OPTIONS = list(itertools.product(ACTIVATIONS, ACTIVATIONS))
#: Every pair of them at one shape.
CASES = [
    (shape, *pair) for shape in SHAPES for pair in (OPTIONS if shape == (33, 3, 129, 3) else PAIRS)
]
every_case = pytest.mark.parametrize(("shape", "activation", "coupling_activation"), CASES, ids=str)


@pytest.mark.parametrize(("backend", "dtype", "memory"), [
    *(("auto", torch.float64, memory) for memory in MEMORY),
    *((backend, torch.float32, "recompute") for backend in ("auto", "cpp")),
])  # fmt: skip
@every_case
def test_kernels_equal_the_reference(
    kernels, monkeypatch, shape, activation, coupling_activation, backend, dtype, memory
):
    """Away from relu's kink, where a last bit decides, float32 stays near the float64 reference."""
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case, options = make_inputs(*shape, dtype), (activation, coupling_activation)
    exact = Inputs(*(x.detach().double().requires_grad_() for x in case))
    tolerance = 1e-12 if dtype == torch.float64 else 3e-5
    assert_near(run(scan, case, *options, memory), run(reference.scan, exact, *options), tolerance)


@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_recompute_equals_store_to_the_last_bit(kernels, monkeypatch, backend, dtype, shape):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case = make_inputs(*shape, dtype)
    for options in PAIRS if backend != "python" else [("relu", "tanh")]:
        stored, recomputed = (run(scan, case, *options, memory=m) for m in MEMORY)
        assert_same_bits(stored, recomputed)


def test_control_a_last_bit_in_a_held_state_is_seen(kernels):
    """The equality above would notice a replay that starts from a c one bit off."""
    case = make_inputs(40, 2, 64, 3, torch.float32)
    with torch.no_grad():
        out, _, _, saved = torch.ops.irevrnn.scan(*case, None, "relu", "tanh", 16, True)
        options = (out, saved, *case[1:], None, "relu", "tanh", 16, True)
        good = torch.ops.irevrnn.scan_backward(torch.ones_like(out), None, None, *options)
        nudged = torch.nextafter(saved, saved + 1)
        options = (out, nudged, *case[1:], None, "relu", "tanh", 16, True)
        bad = torch.ops.irevrnn.scan_backward(torch.ones_like(out), None, None, *options)
    assert not torch.equal(good[4], bad[4])


@pytest.mark.parametrize("memory", MEMORY)
def test_two_runs_and_any_number_of_threads_give_the_same_bits(kernels, memory):
    case = make_inputs(100, 7, 100, 3, torch.float32)
    assert_same_with_any_threads(lambda: run(scan, case, memory=memory))


def test_a_lane_has_the_same_bits_wherever_it_lies(kernels):
    """Vector body, cut tile and scalar kernel: one formula, one rounding."""
    case = make_inputs(40, 3, 130, 3, torch.float32)
    whole, _, _ = scan(*case)
    alone = Inputs(*(x[..., 129:] for x in case))
    assert torch.equal(scan(*alone)[0], whole[..., 129:])
    scalar = torch.ops.irevrnn.scan(*case, None, "relu", "tanh", 16, False)[0]
    assert torch.equal(scalar, whole)


@pytest.mark.parametrize("memory", MEMORY)
def test_tensors_that_are_not_contiguous(kernels, memory):
    case = make_inputs(20, 6, 70, 2, torch.float32)
    wanted = run(scan, case, memory=memory)

    def spread(x):  # the same numbers, last dimension strided
        return x.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_()

    turned = Inputs(*(spread(x) for x in case))
    assert not turned.z.is_contiguous()
    assert_same_bits(run(scan, turned, memory=memory), wanted)
    batch_major = case._replace(z=case.z.detach().transpose(0, 1).contiguous().transpose(0, 1))
    out, _, _ = scan(*batch_major, memory=memory)
    assert torch.equal(out, wanted[0])


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("shape", [(1, 0, 4, 2), (3, 2, 0, 2)], ids=str)
@pytest.mark.parametrize("with_resets", [False, True])
def test_empty_batch_or_width(kernels, with_resets, shape, memory):
    case = make_inputs(*shape, torch.float32)
    resets = torch.ones(shape[:2], dtype=torch.bool) if with_resets else None
    results = run(scan, case, memory=memory, resets=resets)
    assert [x.shape for x in results[3:]] == [x.shape for x in case]
    assert all(not x.any() for x in results[6:])


@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_passes_through_its_own_lane_only(kernels, monkeypatch, backend, activation):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case = make_inputs(20, 2, 20, 3, torch.float32)
    with torch.no_grad():
        case.z[5, 1, 3] = float("nan")
        out, h_n, c_n = scan(*case, activation)
    assert out[5:, 1, 3].isnan().all() or case.u[3] == 0
    out[5:, 1, 3] = h_n[1, 3] = c_n[1, 3] = 0
    assert not any(x.isnan().any() for x in (out, h_n, c_n))


def test_no_grad_holds_nothing(kernels, monkeypatch):
    name, intervals = "saved_interval", []
    real = getattr(oscillator, name)
    monkeypatch.setattr(oscillator, name, lambda *x: intervals.append(real(*x)) or real(*x))
    case = make_inputs(100, 2, 8, 3, torch.float32)
    with torch.no_grad():
        outputs = scan(*case)
    assert_same_bits(outputs, scan(*case))
    assert intervals == [NOTHING_SAVED, SEGMENT]


def test_an_output_changed_in_place_is_noticed(kernels):
    case = make_inputs(4, 1, 3, 1, torch.float64)
    out, _, _ = scan(*case)
    with torch.no_grad():
        out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
