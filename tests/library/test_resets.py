"""Resets: the scan of the pieces, run one by one from states of 0."""

from functools import partial

import pytest
import torch
from torch.func import grad, vmap

from irevrnn import scan
from irevrnn.kernels import reference
from tests.cases import (
    KINDS,
    STATES,
    Inputs,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    every_kind,
    in_pieces,
    make_inputs,
    make_packed,
    make_resets,
    run,
    upstream,
)

pytestmark = pytest.mark.usefixtures("kernels")
MEMORY = ("store", "recompute")
DTYPES = (torch.float32, torch.float64)
both = pytest.mark.parametrize("memory", MEMORY)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


# --- against pieces and the reference ------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_reference_runs_the_pieces(kind, activation):
    case = make_inputs(50, 3, 5, 2, torch.float64)
    resets = make_resets(kind, 50, 3)
    got = run(reference.scan, case, activation, resets=resets)
    wanted = run(in_pieces(lambda *x: reference.scan(*x, activation), resets), case)
    assert_same_bits(got[STATES], wanted[STATES])
    assert_near(got, wanted, 1e-12)
    outputs = got[:3]
    written = reference.scan_backward(
        *upstream(outputs), outputs[0], *case[1:], activation, resets=resets
    )
    assert_near(written, got[3:], 1e-12)


SIZES = ((1, 1), (40, 1), (5, 3), (3, 17), (2, 64), (3, 129))


@pytest.mark.parametrize(("kind", "size", "backend", "dtype", "memory"), [
    (kind, size, ("auto", "cpp")[(i + j) % 2], DTYPES[(i + j // 2) % 2], MEMORY[(i // 2 + j) % 2])
    for i, kind in enumerate(KINDS) for j, size in enumerate(SIZES)
], ids=str)  # fmt: skip
def test_equals_the_pieces_to_the_last_bit(monkeypatch, kind, size, backend, dtype, memory):
    """Sequences of a tile's middle, of several tiles, and of several to a tile."""
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case, resets = make_inputs(50, *size, 2, dtype), make_resets(kind, 50, size[0])
    got = run(scan, case, memory=memory, resets=resets)
    wanted = run(in_pieces(partial(scan, memory=memory), resets), case)
    assert_same_bits(got[STATES], wanted[STATES])
    assert_near(got, wanted, 1e-12 if dtype == torch.float64 else 1e-5)


def test_control_a_reset_that_is_dropped_is_seen():
    case, resets = make_inputs(50, 3, 9, 2, torch.float32), make_resets("at random", 50, 3)
    fewer = resets.clone()
    fewer[tuple(resets.nonzero()[5].tolist())] = False
    got, wanted = (run(scan, case, resets=x) for x in (fewer, resets))
    assert not torch.equal(got[0], wanted[0]) and not torch.equal(got[3], wanted[3])


@every_kind
@pytest.mark.parametrize("interval", [0, 16])
def test_both_kernels_of_the_cpu_have_the_same_bits(kind, interval):
    case, resets = make_inputs(150, 3, 43, 3, torch.float32), make_resets(kind, 150, 3)
    vector, threads = (
        run(lambda *x: torch.ops.irevrnn.scan(*x, *options)[:3], case)  # noqa: B023
        for options in ((None, "tanh", "tanh", interval, way, resets) for way in (True, False))
    )
    assert_same_bits(vector[STATES], threads[STATES])
    assert_near(vector, threads, 2e-4)


@both
def test_any_number_of_threads_gives_the_same_bits(memory):
    case, resets = make_inputs(60, 7, 100, 3, torch.float32), make_resets("at random", 60, 7)
    assert_same_with_any_threads(lambda: run(scan, case, memory=memory, resets=resets))


# --- packed sequences ----------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("kind", "hidden", "dtype"), [
    (kind, (1, 9, 64)[i % 3], DTYPES[i // 3]) for i, kind in enumerate(KINDS)
], ids=str)  # fmt: skip
@pytest.mark.parametrize("lengths", ["around a segment", "long and short"])
def test_packed_sequences(lengths, kind, hidden, dtype, memory):
    case, sizes = make_packed(lengths, hidden, 2, dtype)
    dense = make_resets(kind, len(sizes), int(sizes[0]))
    resets = torch.cat([row[:size] for row, size in zip(dense, sizes.tolist(), strict=True)])
    got = run(scan, case, memory=memory, batch_sizes=sizes, resets=resets)
    wanted = run(in_pieces(partial(scan, memory=memory), resets, sizes), case)
    assert_same_bits(got[STATES], wanted[STATES])
    assert_near(got, wanted, 1e-12 if dtype == torch.float64 else 1e-4)


# --- what was before a reset does not matter -----------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
@both
@dtypes
def test_initial_states_that_are_no_numbers(monkeypatch, backend, memory, dtype):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case, resets = make_inputs(20, 3, 5, 2, dtype), make_resets("at first", 20, 3)
    zero = case._replace(h_0=torch.zeros(3, 5, dtype=dtype), c_0=torch.zeros(3, 5, dtype=dtype))
    wanted = run(scan, Inputs(*(x.detach().requires_grad_() for x in zero)), memory=memory)
    with torch.no_grad():
        case.h_0[:] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, 2.0])
        case.c_0[:] = torch.tensor([1.0, float("nan"), float("inf"), 2.0, -float("inf")])
    got = run(scan, case, memory=memory, resets=resets)
    assert_same_bits([*got[:4], *got[6:]], [*wanted[:4], *wanted[6:]])
    assert not got[4].any() and not got[5].any()


@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
@pytest.mark.parametrize(("value", "couplings"), [("nan", 0), ("inf", 0), ("inf", 2)])
@both
def test_no_gradient_passes_a_reset(monkeypatch, backend, value, couplings, memory):
    """Outputs are no numbers from step 3 until the reset at step 20."""
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case, resets = make_inputs(40, 2, 5, couplings, torch.float32), make_resets("never", 40, 2)
    with torch.no_grad():
        case.z[3], case.u[:], resets[20] = float(value), 1.0, True
    out, h_n, c_n = scan(*case, "identity", memory=memory, resets=resets)
    assert not out[3:20].isfinite().any() and out[20:].isfinite().all()
    loss = out[20:].square().sum() + h_n.sum() + c_n.sum()
    gradients = torch.autograd.grad(loss, case[:3], allow_unused=True, materialize_grads=True)
    assert gradients[0][20:].isfinite().all() and gradients[0][20:].any()
    assert not any(x.any() for x in (gradients[0][:20], *gradients[1:]))


# --- derivatives and transforms ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "python"])
@pytest.mark.parametrize("shared", [True, False])
def test_vmap(monkeypatch, backend, shared):
    """Over members with the same resets, and with resets of their own."""
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    _, *rest = (x.detach() for x in make_inputs(1, 3, 5, 2, torch.float64))
    z = torch.randn(4, 20, 3, 5, dtype=torch.float64)
    resets = torch.rand(4, 20, 3) < 0.2

    def loss(u, z, resets):
        h_0, c_0, _, a, b = rest
        out, h_n, c_n = scan(z, h_0, c_0, u, a, b, "tanh", resets=resets)
        return out.square().sum() + (h_n * c_n).sum()

    in_dims = (None, 0, None if shared else 0)
    given = resets[0] if shared else resets
    each = [(z[i], given if shared else given[i]) for i in range(4)]
    for function in (loss, grad(loss)):
        got = vmap(function, in_dims=in_dims)(rest[2], z, given)
        wanted = torch.stack([function(rest[2], *x) for x in each])
        torch.testing.assert_close(got, wanted)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda x: x.float(), TypeError, "resets must be of dtype torch.bool; got torch.float32"),
    (lambda x: x[:-1], ValueError, r"resets must have shape \(4, 2\), .*; got shape \(3, 2\)"),
])  # fmt: skip
def test_scan_refuses(kernels, change, error, message):
    resets = change(torch.zeros(4, 2, dtype=torch.bool))
    with pytest.raises(error, match=message):
        scan(*make_inputs(4, 2, 3, 1, torch.float32), resets=resets)
