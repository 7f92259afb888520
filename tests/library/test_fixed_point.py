"""Fixed point undone to the last bit: the compiled kernels against their oracle and the entropy."""

import math

import pytest
import torch

from irevrnn.strategies import fixed_point
from irevrnn.strategies.fixed_point import BitStack, round_weight, to_fixed, to_value
from irevrnn.strategies.fixed_scan import Buffer, States, Weights
from irevrnn.strategies.rules import INVERTIBLE

pytestmark = pytest.mark.usefixtures("kernels")
KERNELS = {
    "vector float32": (torch.float32, True),
    "scalar float32": (torch.float32, False),
    "scalar float64": (torch.float64, False),
}
ACTIVATIONS = INVERTIBLE
SHAPES = [(1, 1, 1, 1), (17, 2, 7, 0), (33, 3, 33, 3), (16, 1, 64, 2), (50, 5, 29, 1)]
kernels_of_all_kinds = pytest.mark.parametrize("kernel", KERNELS)


def make_case(steps, batch, hidden, couplings, dtype, activation="leaky_relu", f="tanh", u=None):
    """z, states other than zero, and weights: 0, both signs of 1, and the rest from 0.5 to 1."""
    generator = torch.Generator().manual_seed(steps + hidden)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = 0.5 + 0.5 * torch.rand(hidden, generator=generator)
    awkward = torch.tensor([0.0, 1.0, -1.0, -0.75])[:hidden]
    weights[: len(awkward)] = awkward
    if u is not None:
        weights.fill_(u)
    weights = round_weight(weights.to(dtype))
    a, b = 0.1 * draw(couplings, hidden), 0.1 * draw(couplings, hidden)
    z, h_0, c_0 = draw(steps, batch, hidden), draw(batch, hidden), draw(batch, hidden)
    return z, States.of(h_0, c_0, weights), Weights(weights, a, b, activation, f)


def forward(z, states, weights, vectorize):
    """(out, h_n, c_n, s_n, words, counts, values, bad_step)."""
    return torch.ops.irevrnn.fixed_scan(z, *states, *weights, True, True, vectorize)


def back(z, result, weights, vectorize, words=None):
    """(out, h_0, c_0, s_0, counts_left, values)."""
    _, h, c, s, kept, counts, *_ = result
    buffer = Buffer(kept if words is None else words, counts.cumsum(0) - counts, counts)
    return torch.ops.irevrnn.fixed_unscan(z, h, c, s, *buffer, *weights, vectorize)


def is_undone(states, result, undone):
    """Return whether the inverse met every state of the forward pass and emptied every buffer."""
    back_out, h, c, s, left, values = undone
    pairs = [(result[0], back_out), (result[6], values), *zip(states, (h, c, s), strict=True)]
    return all(torch.equal(x, y) for x, y in pairs) and not left.any()


@kernels_of_all_kinds
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_equal_the_oracle(kernel, shape, activation):
    """In float32 with an f that has one rounding everywhere, which tanh has in float64 alone."""
    dtype, vectorize = KERNELS[kernel]
    f = "tanh" if dtype == torch.float64 else "leaky_relu"
    z, states, weights = make_case(*shape, dtype, activation, f)
    out, h_n, c_n, s_n, _, counts, _, bad_step = forward(z, states, weights, vectorize)
    h, c, s = states
    stack = BitStack(weights.u, shape[1])
    for z_t, out_t in zip(z, out, strict=True):
        h, c = fixed_point.step(z_t, h, c, *weights[:3], stack, activation, f)
        assert torch.equal(to_value(h, dtype), out_t)
    assert all(torch.equal(x, y) for x, y in ((h, h_n), (c, c_n), (stack.s, s_n)))
    assert counts.sum() == sum(map(len, stack.words))
    assert bad_step == -1
    for z_t in z.flip(0):
        h, c = fixed_point.unstep(z_t, h, c, *weights[:3], stack, activation, f)
    assert all(torch.equal(x, y) for x, y in zip(states, (h, c, stack.s), strict=True))
    assert not any(stack.words)


@kernels_of_all_kinds
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("couplings", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(100, 1, 1), (65, 2, 7), (33, 3, 33), (48, 4, 64), (1, 2, 129)])
def test_every_step_is_undone(kernel, activation, couplings, shape):
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(*shape, couplings, dtype, activation)
    result = forward(z, states, weights, vectorize)
    assert is_undone(states, result, back(z, result, weights, vectorize))


@kernels_of_all_kinds
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 33), (3, 50)], ids=str)
def test_an_f_that_is_not_0_at_0_is_undone(kernel, activation, size):
    """It moves the lanes that fill up the last vector, which must leave nothing on the stack."""
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(200, *size, 3, dtype, activation, "sigmoid")
    weights.b[:] = -5 * weights.b.abs()
    result = forward(z, states, weights, vectorize)
    assert is_undone(states, result, back(z, result, weights, vectorize))


@kernels_of_all_kinds
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(1, 5), (2, 7), (1, 33), (2, 32)], ids=str)
def test_ten_thousand_steps_are_undone(kernel, activation, size):
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(10_000, *size, 3, dtype, activation)
    result = forward(z, states, weights, vectorize)
    assert len(result[4]) > 1000
    assert is_undone(states, result, back(z, result, weights, vectorize))


@kernels_of_all_kinds
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_control_a_flipped_bit_is_noticed(kernel, activation):
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(500, 2, 9, 2, dtype, activation)
    result = forward(z, states, weights, vectorize)
    words = result[4]
    for index, bit in ((0, 0), (len(words) // 2, 7), (len(words) - 1, 14)):
        flipped = words.clone()
        flipped[index] ^= 1 << bit
        assert not is_undone(states, result, back(z, result, weights, vectorize, flipped))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_vector_and_scalar_kernels_give_the_same_bits(shape, activation):
    z, states, weights = make_case(*shape, torch.float32, activation)
    vector, scalar = (forward(z, states, weights, vectorize) for vectorize in (True, False))
    out, h, c, s, _, _, values, _ = map(torch.equal, vector, scalar)
    assert out and h and c and s and values
    assert vector[5].sum() == scalar[5].sum()  # each kernel cuts the lanes its own way


@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
@pytest.mark.parametrize("u", [0.5, 0.7368, -0.9, 0.975, 0.995])
@kernels_of_all_kinds
def test_bits_are_the_entropy_that_is_forgotten(kernel, u, activation):
    dtype, vectorize = KERNELS[kernel]
    steps, batch, hidden = 4000, 2, 33
    z, states, weights = make_case(steps, batch, hidden, 2, dtype, activation, u=u)
    out, _, _, s, words, counts, *_ = forward(z, states, weights, vectorize)
    units = batch * hidden
    entropy = -math.log2(abs(weights.u[0].item())) * steps * units
    if activation == "leaky_relu":
        entropy += 2 * (out < 0).sum().item()
    bits = 16 * len(words) + (s.double().log2() - states.s.double().log2()).sum().item()
    assert bits == pytest.approx(entropy, rel=0.01)
    allocated = 8 * sum(x.untyped_storage().nbytes() for x in (words, counts, s))
    assert allocated <= entropy + 128 * units


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_two_runs_and_any_number_of_threads_give_the_same_bits(activation):
    case = make_case(60, 7, 100, 2, torch.float32, activation)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            result = forward(*case, True)
            runs.append((*result, *back(case[0], result, case[2], True)))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(runs[0], other, strict=True))


@kernels_of_all_kinds
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e6, -3e6])
def test_the_first_step_out_of_range_is_reported(kernel, value):
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(40, 2, 33, 2, dtype)
    z[17, 1, 30] = value
    z[23, 0, 2] = value
    assert forward(z, states, weights, vectorize)[7] == 17


@kernels_of_all_kinds
@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0**27, 2.0**28])
@pytest.mark.parametrize("couplings", [1, 2, 4, 16])
def test_wild_weights_do_not_wrap_around(kernel, value, couplings):
    """An increment of 2^63 units, added twice, would leave no trace in 64 bits."""
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(3, 1, 5, couplings, dtype)
    states.c.fill_(2**36)
    weights.b[:, 3] = value
    weights.a[:] = 0
    assert forward(z, states, weights, vectorize)[7] == 0


@kernels_of_all_kinds
@pytest.mark.parametrize("case", ["p and z", "c twice", "h_0", "c_0"])
def test_what_left_the_range_is_not_brought_back(kernel, case):
    """Two numbers out of range that add up to one within, and a NaN for an initial state."""
    dtype, vectorize = KERNELS[kernel]
    z, states, weights = make_case(3, 1, 5, 2, dtype, u=1e-4)
    weights.a[:], weights.b[:] = 0, 0
    states.h.fill_(2**55)
    states.c.fill_(2**50)
    if case == "p and z":
        weights.b[0, 3], z[0, 0, 3] = 2.0**28, -math.inf
    elif case == "c twice":
        weights.a[:, 3] = torch.tensor([2.0**28, -(2.0**28)])
    else:
        state = states.h if case == "h_0" else states.c
        state[0, 3] = to_fixed(torch.tensor(math.nan))
    assert forward(z, states, weights, vectorize)[7] == 0


def test_weights_are_rounded_with_a_gradient_of_one():
    for dtype in (torch.float32, torch.float64):
        u = torch.tensor([0.0, 1.0, -1.0, 0.3, -1e-9], dtype=dtype, requires_grad=True)
        rounded = round_weight(u)
        n = rounded * 2**16
        assert torch.equal(n, n.round())
        assert n.tolist()[:3] == [1, 2**16, -(2**16)]
        assert (rounded - u).abs().max() <= 2.0**-16
        (gradient,) = torch.autograd.grad((3 * rounded).sum(), u)
        assert torch.equal(gradient, torch.full_like(u, 3))
    for bad in (1.0001, -1.5, math.nan):
        with pytest.raises(ValueError, match=r"must lie in \[-1, 1\].*clip_recurrent_weights_"):
            round_weight(torch.tensor([0.5, bad]))


def test_rounding_goes_to_even():
    assert to_fixed(torch.tensor([0.5, 1.5, -2.5]).double() * 2.0**-36).tolist() == [0, 2, -2]
