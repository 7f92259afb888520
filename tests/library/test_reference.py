"""The oracle itself: its inverse and its hand-written gradient."""

import pytest
import torch

from irevrnn.kernels import reference
from irevrnn.kernels.activations import ACTIVATIONS
from tests.cases import make_inputs, upstream


@pytest.mark.parametrize("coupling_activation", ACTIVATIONS)
def test_uncouple_undoes_couple(coupling_activation):
    case = make_inputs(1, 3, 7, 4, torch.float64, scale=0.3)
    p, c = reference.couple(case.u * case.h_0, case.c_0, case.a, case.b, coupling_activation)
    p_0, c_0 = reference.uncouple(p, c, case.a, case.b, coupling_activation)
    torch.testing.assert_close(p_0, case.u * case.h_0, rtol=0, atol=1e-13)
    torch.testing.assert_close(c_0, case.c_0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("coupling_activation", ACTIVATIONS)
def test_written_gradient_is_that_of_autograd(activation, coupling_activation):
    case = make_inputs(13, 2, 7, 2, torch.float64, scale=0.3)
    options = (activation, coupling_activation)
    outputs = reference.scan(*case, *options)
    gradients = upstream(outputs)
    wanted = torch.autograd.grad(outputs, case, gradients)
    with torch.no_grad():
        written = reference.scan_backward(*gradients, outputs[0], *case[1:], *options)
    torch.testing.assert_close(written, wanted, rtol=1e-11, atol=1e-12)


def test_without_couplings_it_is_indrnn():
    case = make_inputs(5, 2, 3, 0, torch.float64)
    out, h_n, c_n = reference.scan(*case)
    h = case.h_0
    for z in case.z:
        h = torch.relu(z + case.u * h)
    assert torch.equal(h_n, h)
    assert torch.equal(out[-1], h)
    assert torch.equal(c_n, case.c_0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_decay_and_activation_change_volumes(activation):
    case = make_inputs(1, 1, 1, 2, torch.float64)
    z, h, c, u, a, b = (x.squeeze() for x in case)

    def step(state):
        return torch.stack(reference.step(z, *state, u, a, b, activation))

    state = torch.stack([h, c])
    jacobian = torch.autograd.functional.jacobian(step, state)
    expected = u * ACTIVATIONS[activation].slope_from_output(step(state)[0])  # eq:volume
    torch.testing.assert_close(torch.linalg.det(jacobian), expected)
