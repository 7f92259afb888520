"""The kernels' two hyperbolic tangents, against double precision."""

import pytest
import torch

from experiments.bench.roofline import operators
from irevrnn import scan

#: Every 1,009th float from 2^-25 to 16.
FLOATS = torch.arange(0x33000000, 0x41800000, 1009, dtype=torch.int32).view(torch.float32)
#: Whole packs of vectors of every width.
WHOLE = 128


def of_couplings(x):
    """The function that couplings take for f = tanh."""
    y = torch.cat([x, x.new_zeros(-len(x) % WHOLE)])
    operators().repeat_tanh(y, 1)
    return y[: len(x)]


def of_output(x):
    """The function that the output takes for g = tanh."""
    state, none = torch.zeros(1, len(x)), torch.zeros(0, len(x))
    return scan(x[None, None], state, state, state[0], none, none, "tanh")[0].flatten()


def ulps(got, x):
    """Errors in units of the last place of the exact value, which is 0.5 ulp at best on average."""
    exact = x.double().tanh()
    _, exponent = torch.frexp(exact)
    return (got.double() - exact).abs() / torch.ldexp(torch.ones_like(exact), exponent - 24)


@pytest.mark.parametrize(("tanh", "largest", "range"), [
    (of_couplings, 5.3, 16), (of_couplings, 2.5, 1),  # where units are not saturated
    (of_output, 2.6, 16),
])  # fmt: skip
def test_errors_are_bounded(kernels, tanh, largest, range):
    x = FLOATS[range >= FLOATS]
    errors = ulps(tanh(x), x)
    assert errors.max() < largest and errors.square().mean().sqrt() < 0.6


@pytest.mark.parametrize("tanh", [of_couplings, of_output])
def test_they_are_odd_saturate_and_pass_a_nan_on(kernels, tanh):
    assert torch.equal(tanh(-FLOATS), -tanh(FLOATS))
    ends = tanh(torch.tensor([0.0, 20.0, 1e30, float("inf"), float("nan")]))
    assert ends[0] == 0
    assert torch.equal(ends[1:4], torch.ones(3))
    assert ends[4].isnan()
