"""Resets in fixed point: what they forget is kept, and the inverse takes it back."""

import pytest
import torch

from irevrnn.kernels import reference
from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_scan import States
from irevrnn.recurrences.oscillator import Weights
from tests.cases import assert_same_bits, every_kind, make_resets, upstream
from tests.fixed_cases import back, every_g, every_kernel, forward, is_undone, make_case

pytestmark = pytest.mark.usefixtures("kernels")


@every_kernel
@every_g
def test_control_an_inverse_with_other_resets_fails(dtype, vectorize, activation):
    z, states, weights = make_case(70, 3, 17, 2, dtype, activation)
    resets = make_resets("at random", 70, 3)
    result = forward(z, states, weights, vectorize, resets)
    fewer, moved = resets.clone(), resets.clone()
    t, i = resets.nonzero()[7].tolist()
    fewer[t, i] = moved[t, i] = False
    moved[t - 1, i] = True
    for other in (None, fewer, moved):
        assert not is_undone(states, result, back(z, result, weights, vectorize, other))


@every_kernel
@pytest.mark.parametrize("size", [(1, 1), (70, 1), (2, 64), (3, 43)], ids=str)
def test_equals_the_pieces_to_the_last_bit(dtype, vectorize, size):
    """From states of 0, at the same step: rounding depends on it, and scales on segments."""
    z, _, weights = make_case(50, *size, 2, dtype)
    z += 0.1 * z.sign()  # small input asks for other scales, as do small states
    states = States.of(torch.ones(size), torch.ones(size))
    resets = torch.zeros(50, size[0], dtype=torch.bool)
    resets[[0, 16, 32]] = True
    whole = forward(z, states, weights, vectorize, resets)
    parts, zero = [], torch.zeros(size)
    for piece, begin in zip(z.split([16, 16, 18]), (0, 16, 32), strict=True):
        zeros = States.of(zero, zero)._replace(steps=begin)
        parts.append(forward(piece, zeros, weights, vectorize))
    assert torch.equal(whole.out, torch.cat([part.out for part in parts]))
    assert not whole.saved[:2].any()  # c after the resets where the first two segments begin
    assert torch.equal(whole.saved[2:], parts[-1].saved)
    assert_same_bits(whole[1:3], parts[-1][1:3])


@every_kernel
def test_a_reset_forgets_a_state_out_of_range(dtype, vectorize):
    z, states, weights = make_case(20, 2, 7, 2, dtype)
    states.h[1], states.c[1] = 2**31 - 128, 2**30
    for resets, bad_step in ((None, 0), (torch.eye(20, 2, dtype=torch.bool), 0)):
        assert forward(z, states, weights, vectorize, resets)[7] == bad_step
    resets = make_resets("at first", 20, 2)
    result = forward(z, states, weights, vectorize, resets)
    assert result[7] == -1
    assert is_undone(states, result, back(z, result, weights, vectorize, resets))


@every_kernel
@every_kind
@every_g
def test_the_gradient_is_that_of_the_float_recurrence(
    dtype, vectorize, monkeypatch, activation, kind
):
    monkeypatch.setenv("IREVRNN_BACKEND", "auto" if vectorize else "cpp")
    z, states, weights = make_case(40, 3, 11, 2, dtype, activation)
    resets = make_resets(kind, 40, 3)
    result, _, _ = fixed_scan.forward(z, states, weights, save=True, resets=resets)
    h_0, c_0 = states.numbers.values(torch.float64)
    case = [x.double().requires_grad_() for x in (z, h_0, c_0, *weights[:3])]
    wanted = reference.scan(*case, activation, "tanh", resets=resets)
    wanted = torch.autograd.grad(wanted, case, upstream(wanted), materialize_grads=True)
    leaves = [x.detach().to(dtype).requires_grad_() for x in case]
    weights = Weights(*leaves[3:], activation, "tanh")
    got = weights.gradient(result, leaves[0], leaves[1:3], vectorize, resets, None)
    got = torch.autograd.grad(got, leaves, upstream(got))
    for x, y in zip(got, wanted, strict=True):
        assert (x.double() - y).norm() <= 2e-2 * (y.norm() + 1e-3)
    assert not got[1][resets[0]].any() and not got[2][resets[0]].any()


def test_room_is_for_the_resets_there_are():
    """On a GPU columns of words are allocated before it is known how many there are."""
    u = torch.ones(3, dtype=torch.float64)
    resets = torch.tensor([[False, True], [False, True], [True, False]])
    z, none = torch.zeros(3, 2, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
    states = States.of(torch.zeros(2, 3), torch.zeros(2, 3))
    counts = forward(z, states, Weights(u, none, none, "identity", "tanh"), False, resets)[5]
    assert counts.view(2, 3).tolist() == [[2] * 3, [4] * 3]
