"""Fixed point undone to the last bit: the compiled kernels against their oracle and the entropy."""

import math

import pytest
import torch

from irevrnn.recurrences.fixed_point import decay_of, stored_bits, to_fixed
from irevrnn.recurrences.fixed_scan import Buffer, States
from tests.cases import KINDS, assert_same_bits, assert_same_with_any_threads, make_resets
from tests.fixed_cases import (
    back,
    bits_of,
    every_g,
    every_kernel,
    forward,
    in_words,
    is_undone,
    make_case,
    oracle,
    words_of_lanes,
)

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [(1, 1, 1, 1), (17, 2, 7, 0), (33, 3, 33, 3), (16, 1, 64, 2), (50, 5, 29, 1)]


def shapes_and_resets(shapes, *with_resets):
    """Some shapes without resets, others with those of every kind."""
    pairs = [(shape, None) for shape in shapes]
    return pytest.mark.parametrize(
        ("shape", "kind"), pairs + [(x, kind) for x in with_resets for kind in KINDS], ids=str
    )


@every_kernel
@every_g
@shapes_and_resets(SHAPES, (35, 3, 11, 2))
def test_kernels_equal_the_oracle(dtype, vectorize, shape, kind, activation):
    """In float32 with an f that has one rounding everywhere, which tanh has in float64 alone."""
    f = "tanh" if dtype == torch.float64 else "leaky_relu"
    case, resets = make_case(*shape, dtype, activation, f), make_resets(kind, *shape[:2])
    result = forward(*case, vectorize, resets)
    out, numbers, stack = oracle(*case, resets)
    assert result.bad_step == -1
    assert_same_bits((result.out, result.h, result.c, result.scales), (out, *numbers))
    assert bits_of(result) == stack.count()
    if not vectorize:  # each lane has a stack of its own
        assert words_of_lanes(result) == list(map(in_words, stack.stacks))
        assert result.places.tolist() == stack.places


SIZES = [(100, 1, 1), (65, 2, 7), (33, 3, 33), (48, 4, 64), (1, 2, 129)]


@every_kernel
@every_g
@shapes_and_resets(
    [
        *((*size, couplings) for size in SIZES for couplings in (0, 3)),
        *((10_000, *size, 3) for size in ((1, 5), (2, 7), (1, 33), (2, 32))),
    ],
    *((70, *size, 2) for size in ((1, 1), (70, 1), (2, 64), (3, 43))),
)
def test_every_step_is_undone(dtype, vectorize, activation, shape, kind):
    z, states, weights = make_case(*shape, dtype, activation)
    resets = make_resets(kind, *shape[:2])
    result = forward(z, states, weights, vectorize, resets)
    assert result[7] == -1
    assert is_undone(states, result, back(z, result, weights, vectorize, resets))


@every_kernel
@every_g
def test_control_a_flipped_bit_is_noticed(dtype, vectorize, activation):
    z, states, weights = make_case(500, 2, 9, 2, dtype, activation)
    result = forward(z, states, weights, vectorize)
    words = result[4]
    for index, bit in ((0, 0), (len(words) // 2, 7), (len(words) - 1, 14)):
        flipped = words.clone()
        flipped[index] ^= 1 << bit
        assert not is_undone(states, result, back(z, result, weights, vectorize, words=flipped))


@every_g
@shapes_and_resets(SHAPES, (70, 3, 43, 3))
def test_vector_and_scalar_kernels_give_the_same_bits(shape, kind, activation):
    case, resets = make_case(*shape, torch.float32, activation), make_resets(kind, *shape[:2])
    vector, scalar = (forward(*case, vectorize, resets) for vectorize in (True, False))
    for field in ("out", "h", "c", "saved", "scales"):
        assert torch.equal(getattr(vector, field), getattr(scalar, field))
    assert bits_of(vector) == bits_of(scalar)  # each kernel shares the lanes out its own way


def in_usual_scale(*args, **options):
    """A case whose states are neither small at first nor large later."""
    z, states, weights = make_case(*args, **options)
    ones = torch.ones(states.h.shape)
    return 0.1 * z, States.of(ones, ones), weights._replace(a=0.01 * weights.a, b=0.01 * weights.b)


@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
@pytest.mark.parametrize("u", [0.2, 0.5, 0.7368, -0.9, 0.975, 0.995])
@every_kernel
def test_bits_are_those_that_are_told(dtype, vectorize, u, activation):
    """2 (1 - u) a step above 1/2, at most 2 log 2 times the entropy -log2 u."""
    steps, batch, hidden = 4000, 2, 33
    z, states, weights = in_usual_scale(steps, batch, hidden, 2, dtype, activation, u=u)
    result = forward(z, states, weights, vectorize)
    units = batch * hidden
    told = stored_bits(weights.u).sum().item() * steps * batch
    if abs(u) > 0.5:
        assert told == pytest.approx(2 * (1 - abs(u)) * steps * units, rel=1e-6)
        assert told <= 2 * math.log(2) * -math.log2(abs(u)) * steps * units
    leaks = 2 * (result[0] < 0).sum().item() if activation == "leaky_relu" else 0
    assert bits_of(result) == pytest.approx(told + leaks, rel=0.03)
    allocated = 8 * sum(x.untyped_storage().nbytes() for x in result[3:6])
    assert allocated <= bits_of(result) + 128 * units


@every_kernel
def test_a_state_that_is_not_fed_decays_at_the_same_price(dtype, vectorize):
    """It does not come to rest where rounding keeps it, with a bit in each step."""
    z, states, weights = make_case(4000, 2, 33, 0, dtype, "identity", u=0.99)
    result = forward(z.zero_(), states, weights, vectorize)
    assert bits_of(result) == pytest.approx(0.02 * z.numel(), rel=0.03)
    assert (result[1].abs() <= 2).all()
    assert is_undone(states, result, back(z, result, weights, vectorize))


@every_kernel
def test_nothing_is_stored_where_nothing_is_forgotten(dtype, vectorize):
    z, states, weights = in_usual_scale(500, 3, 33, 2, dtype, "identity", u=1)
    result = forward(z, states, weights, vectorize)
    assert bits_of(result) == 0
    assert is_undone(states, result, back(z, result, weights, vectorize))


@every_g
def test_two_runs_and_any_number_of_threads_give_the_same_bits(activation):
    z, states, weights = make_case(60, 7, 100, 2, torch.float32, activation)

    def both_ways():
        result = forward(z, states, weights, True)
        return *result, *back(z, result, weights, True)

    assert_same_with_any_threads(both_ways)


@every_kernel
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7, -1e7])
@pytest.mark.parametrize("steps", [(37, 5), (5, 37), (0, 0), (16, 15)])
def test_the_first_step_out_of_range_is_reported(dtype, vectorize, steps, value):
    z, states, weights = make_case(40, 2, 33, 2, dtype)
    z[steps[0], 1, 30] = z[steps[1], 0, 2] = value
    result = forward(z, states, weights, vectorize)
    assert result.bad_step == min(steps) and (vectorize or len(result.words) == 0)


@every_kernel
@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0**24, 2.0**25])
@pytest.mark.parametrize("couplings", [1, 2, 4, 16])
def test_wild_weights_do_not_wrap_around(dtype, vectorize, value, couplings):
    """An increment of 2^31 quanta, added twice, would leave no trace in 32 bits."""
    z, states, weights = make_case(3, 1, 5, couplings, dtype)
    states.c.fill_(2**26)
    weights.b[:, 3] = value
    weights.a[:] = 0
    assert forward(z, states, weights, vectorize)[7] == 0


@every_kernel
@pytest.mark.parametrize("case", ["p and z", "c twice", "h_0", "c_0"])
def test_what_left_the_range_is_not_brought_back(dtype, vectorize, case):
    """Two numbers out of range that add up to one within, and a NaN for an initial state."""
    z, states, weights = make_case(3, 1, 5, 2, dtype, u=1e-4)
    weights.a[:], weights.b[:] = 0, 0
    states.h.fill_(2**28)
    states.c.fill_(2**26)
    if case == "p and z":
        weights.b[0, 3], z[0, 0, 3] = 2.0**24, -(2.0**24)
    elif case == "c twice":
        weights.a[:, 3] = torch.tensor([2.0**34, -(2.0**34)])
    else:
        state = states.h if case == "h_0" else states.c
        state[0, 3] = to_fixed(torch.tensor(math.nan), torch.tensor(24))
    assert forward(z, states, weights, vectorize)[7] == 0


@every_kernel
@pytest.mark.parametrize(("b", "bits"), [(2.03, 24), (2.56, 24), (4.0, 22), (1e3, 14), (1e5, 6)])
def test_p_may_leave_the_range_on_the_way(dtype, vectorize, b, bits):
    """To -30.4 + 30 b, by an increment of more than twice the range; z brings it back, or not."""
    z, states, weights = make_case(1, 1, 70, 1, dtype, "identity", "identity")
    weights.u[:], weights.a[:], weights.b[:], z[:] = 1, 0, b, -30.4
    states = States.of(torch.full((1, 70), -30.4), torch.full((1, 70), 30.0))
    result = forward(z, states, weights, vectorize)
    assert result.bad_step == -1 and (result.scales[0] == bits).all()
    wanted = torch.full_like(z, 30 * b - 60.8)
    torch.testing.assert_close(result.out, wanted, rtol=1e-6, atol=1e-5)
    assert is_undone(states, result, back(z, result, weights, vectorize))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_weight_is_two_integers(dtype):
    """Exactly in float32, but for weights that shift all bits out."""
    drawn = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    u = torch.cat([drawn, torch.tensor([1, -1, 0.5, 2**-8, 1 - 2**-24, -1e-3], dtype=dtype)])
    m, shift = decay_of(u)
    assert (m >= 0).all() and (m < 2**31).all() and (shift >= 0).all()
    again = (1 - m.double() * 2.0**-32) * 2.0 ** -shift.double()
    assert ((again - u.double().abs()).abs() <= 2.0**-31 * u.double().abs()).all()
    if dtype == torch.float32:
        exact = u.abs() >= 2**-8
        assert torch.equal(again[exact], u.double().abs()[exact])
    assert [x.tolist() for x in decay_of(torch.tensor([0.0, 1e-30], dtype=dtype))] == [
        [0, 0],
        [29, 29],
    ]


def test_rounding_goes_to_even_and_stays_out_of_range():
    bits = torch.tensor(18)
    x = torch.tensor([0.5, 1.5, -2.5]).double() * 2.0**-18
    assert to_fixed(x, bits).tolist() == [0, 2, -2]
    wild = to_fixed(torch.tensor([math.nan, math.inf, -math.inf, 1e30]), bits)
    assert (wild.abs() >= 2**29).all()


@pytest.mark.parametrize("steps", [16, 1024])
@pytest.mark.parametrize("activation", ["identity", "leaky_relu", "relu"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_an_empty_buffer_is_read_as_zeros(vectorize, activation, steps):
    """However many bits are asked for, nothing beyond is read."""
    z, states, weights = make_case(steps, 2, 40, 1, torch.float32, activation)
    streams = len(forward(z, states, weights, vectorize)[5])
    tensors = states.tensors

    def undone(words_of_stack):
        counts = torch.full((streams,), words_of_stack)
        words = torch.zeros(streams * words_of_stack, dtype=torch.int32)
        buffer = Buffer(words, counts.cumsum(0) - counts, counts)
        return torch.ops.irevrnn.fixed_unscan(
            z, tensors, steps, *buffer, *weights.arguments, vectorize
        )

    (out, _, short, _), (same, _, left, _) = undone(0), undone(200 * steps)
    assert torch.equal(out, same) and (short < 0).any() and (left >= 0).all()
