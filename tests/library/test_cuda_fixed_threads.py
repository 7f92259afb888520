"""The fixed-point scan by the functions of a CUDA thread, which the CPU runs over a grid.

Blocks have 16 threads (``gpu_threads.py``); the last is partial where that does not divide the
number of lanes.
"""

import math

import pytest
import torch

from irevrnn.activations import ACTIVATIONS
from irevrnn.modules.recurrence import Recurrence
from irevrnn.strategies import fixed_point
from irevrnn.strategies.fixed_point import BitStack, to_value
from irevrnn.strategies.fixed_scan import States
from irevrnn.strategies.rules import INVERTIBLE
from tests.library import test_fixed_packed, test_fixed_point
from tests.library.gpu_threads import by_gpu_threads
from tests.library.test_fixed_point import bits_of, is_undone

#: Random walks of these lengths leave the range of the finest unit.
FRACTION_BITS = 18
pytestmark = pytest.mark.usefixtures("kernels")
#: f with one rounding, wherever it is computed: the oracle gives the same bits.
SAME_EVERYWHERE = ("leaky_relu", "relu", "identity")
SIZES = [(1, 1), (3, 5), (1, 16), (1, 17), (4, 33)]  # up to, at and beyond one block
sizes = pytest.mark.parametrize("size", SIZES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
every_g = pytest.mark.parametrize("activation", INVERTIBLE)


def run(*case):
    with by_gpu_threads():
        return test_fixed_point.forward(*case)


def back(*result, **options):
    with by_gpu_threads():
        return test_fixed_point.back(*result, **options)


def make_case(
    steps, size, couplings, dtype, activation="leaky_relu", f="tanh", fraction_bits=FRACTION_BITS
):  # fmt: skip
    """z, states other than zero, and weights at 0, 1e-6, both signs of 1, and from 0.5 to 1."""
    generator = torch.Generator().manual_seed(100 * steps + couplings)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    batch, hidden = size
    u = 0.5 + 0.5 * torch.rand(hidden, generator=generator)
    awkward = torch.tensor([0.0, 1.0, -1.0, 1e-6, -1e-6, -0.75])[:hidden]
    u[hidden - len(awkward) :] = awkward
    u = u.to(dtype)
    # Nothing bounds a state that is coupled through another f than tanh, so couple it little.
    a, b = (0.3 / (2 + couplings) * draw(couplings, hidden) for _ in range(2))
    states = States.of(draw(*size), draw(*size), fraction_bits)
    return draw(steps, *size), states, Recurrence(u, a, b, activation, f)


def oracle(z, states, weights):
    """Outputs, final states, and the words and the tail of each lane."""
    stack, (h, c), out = BitStack(weights.u, z.shape[1]), states[:2], []
    for z_t in z:
        h, c = fixed_point.step(
            z_t, h, c, *weights[:3], stack, *weights[3:], fraction_bits=FRACTION_BITS
        )
        out.append(to_value(h, z.dtype, FRACTION_BITS))
    return torch.stack(out), h, c, [in_words(pushed) for pushed in stack.stacks]


def in_words(pushed):
    """Return the words and the tail of a stack: see Tail in ``csrc/bit_stack.h``."""
    words, tail = [], 1
    for value, bits in pushed:
        tail = tail << bits | value
        if tail >> 32:
            words.append(tail & 0xFFFFFFFF)
            tail >>= 32
    return words, tail


def words_of_lanes(words, counts, tails):
    """The words of each lane, as numbers without a sign, and its tail."""
    parts = words.split(counts.tolist())
    stacks = [[word & 0xFFFFFFFF for word in part.tolist()] for part in parts]
    return list(zip(stacks, tails.tolist(), strict=True))


@every_g
@dtypes
@sizes
@pytest.mark.parametrize("couplings", range(7))
def test_a_grid_equals_the_oracle(couplings, size, dtype, activation):
    """States, outputs and the very words of every lane."""
    f = SAME_EVERYWHERE[couplings % 3]
    case = make_case(40, size, couplings, dtype, activation, f)
    out, h, c, tails, words, counts, _, bad_step = run(*case, False)
    assert bad_step == -1
    wanted, *finals, stacks = oracle(*case)
    assert torch.equal(out, wanted)
    assert all(torch.equal(x, y) for x, y in zip((h, c), finals, strict=True))
    assert words_of_lanes(words, counts, tails) == stacks


@every_g
@dtypes
@sizes
@pytest.mark.parametrize("couplings", range(7))
@pytest.mark.parametrize("steps", [1, 2, 17, 150])
def test_a_grid_is_undone(steps, couplings, size, dtype, activation):
    case = make_case(steps, size, couplings, dtype, activation)
    result = run(*case, False)
    assert is_undone(case[1], result, back(case[0], result, case[2], False))


@every_g
@dtypes
@test_fixed_packed.batches
@pytest.mark.parametrize("hidden", [1, 16, 17])
@pytest.mark.parametrize("often", [0.0, 0.1])
def test_a_grid_of_packed_sequences(sizes, hidden, dtype, activation, often):
    """The bits of the library's kernels, words included, and undone."""
    case = test_fixed_packed.make_packed(sizes, hidden, dtype, activation, often)
    wanted = test_fixed_packed.forward(*case, False)
    with by_gpu_threads():
        result = test_fixed_packed.forward(*case, False)
        undone = test_fixed_packed.back(*case[:3], result, case[4], False)
    assert all(torch.equal(x, y) for x, y in zip(result, wanted, strict=True))
    test_fixed_packed.assert_undone(case[3], result, undone)


@pytest.mark.parametrize("f", ACTIVATIONS)
@pytest.mark.parametrize("couplings", range(6))
@sizes
def test_a_grid_gives_the_bits_of_the_vectors(size, couplings, f):
    case = make_case(33, size, couplings, torch.float32, f=f)
    lanes, vectors = run(*case, False), test_fixed_point.forward(*case, True)
    for index in (0, 1, 2, 6):  # out, h_n, c_n, values
        assert torch.equal(lanes[index], vectors[index])
    assert bits_of(lanes) == bits_of(vectors)


@every_g
@dtypes
def test_twenty_thousand_steps_are_undone(dtype, activation):
    case = make_case(20_000, (1, 17), 2, dtype, activation, fraction_bits=10)
    result = run(*case, False)
    undone = back(case[0], result, case[2], False, fraction_bits=10)
    assert result[7] == -1 and is_undone(case[1], result, undone)


@dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf, -3e3])
@pytest.mark.parametrize("steps", [(37, 5), (5, 37), (0, 0), (16, 15)])
def test_the_first_step_out_of_range_of_any_lane_is_reported(steps, value, dtype):
    z, states, weights = make_case(40, (2, 33), 2, dtype)
    for lane, step in zip((3, 31), steps, strict=True):
        z[step, 1, lane] = value
    result = run(z, states, weights, False)
    assert result[7] == min(steps)
    assert len(result[4]) == 0


@every_g
@dtypes
def test_control_any_tampered_word_is_noticed(dtype, activation):
    case = make_case(60, (1, 6), 1, dtype, activation)
    result = run(*case, False)
    assert len(result[4]) > 10
    for index in range(len(result[4])):
        words = result[4].clone()
        words[index] ^= 1 << index % 15
        assert not is_undone(case[1], result, back(case[0], result, case[2], False, words))


@pytest.mark.parametrize("change", [1, -1, 10_000, -(2**62), 2**62])
@every_g
def test_control_a_tampered_count_reads_nothing_beyond(activation, change):
    """A lane that asks for more than there is gets zeros and says so."""
    case = make_case(60, (1, 6), 1, torch.float64, activation)
    result = list(run(*case, False))
    result[5] = result[5].clone()
    result[5][3] += change
    undone = back(case[0], result, case[2], False)
    assert not is_undone(case[1], result, undone)


def test_a_pass_that_keeps_no_words_has_the_same_states():
    case = make_case(40, (2, 9), 2, torch.float64, "relu")
    z, states, weights = case
    kept = run(*case, False)
    with by_gpu_threads():
        dropped = torch.ops.irevrnn.fixed_scan(z, *states, *weights, False, False, False)
    assert all(torch.equal(x, y) for x, y in zip(kept[:4], dropped[:4], strict=True))
    assert len(dropped[4]) == 0


def test_another_number_of_stacks_is_refused():
    case = make_case(4, (2, 9), 2, torch.float64)
    result = list(run(*case, False))
    result[5] = result[5][:-1]
    with pytest.raises(ValueError, match="counts must have 18 entries; got 17"):
        back(case[0], result, case[2], False)
