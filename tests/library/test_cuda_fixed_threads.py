"""The fixed-point scan by the functions of a CUDA thread, which the CPU runs over a grid.

Blocks have 16 threads (``gpu_threads.py``); the last is partial where that does not divide the
number of lanes.
"""

import pytest
import torch

from irevrnn.kernels.activations import ACTIVATIONS
from tests import fixed_cases
from tests.cases import assert_same_bits
from tests.fixed_cases import (
    bits_of,
    every_batch,
    every_g,
    forward,
    in_words,
    is_undone,
    make_case,
    make_packed_case,
    oracle,
    words_of_lanes,
)
from tests.library.gpu_threads import by_gpu_threads

pytestmark = pytest.mark.usefixtures("kernels")
#: f with one rounding, wherever it is computed: the oracle gives the same bits.
SAME_EVERYWHERE = ("leaky_relu", "relu", "identity")
SIZES = [(3, 5), (1, 16), (4, 33)]  # up to, at and beyond one block
sizes = pytest.mark.parametrize("size", SIZES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
#: R is known to the compiler for float32 alone, and up to 4.
kernels = pytest.mark.parametrize(
    ("dtype", "couplings"),
    [*((torch.float32, r) for r in range(6)), (torch.float64, 0), (torch.float64, 3)],
    ids=str,
)
run, back = by_gpu_threads()(forward), by_gpu_threads()(fixed_cases.back)


@every_g
@kernels
@sizes
def test_a_grid_equals_the_oracle(couplings, size, dtype, activation):
    """States, outputs and the very words of every lane."""
    f = SAME_EVERYWHERE[couplings % 3]
    case = make_case(40, *size, couplings, dtype, activation, f)
    result = run(*case, False)
    assert result.bad_step == -1
    out, numbers, stack = oracle(*case)
    assert_same_bits((result.out, result.h, result.c, result.scales), (out, *numbers))
    assert words_of_lanes(result) == list(map(in_words, stack.stacks))
    assert result.places.tolist() == stack.places


@every_g
@kernels
@sizes
@pytest.mark.parametrize("steps", [1, 17, 150])
def test_a_grid_is_undone(steps, couplings, size, dtype, activation):
    case = make_case(steps, *size, couplings, dtype, activation)
    result = run(*case, False)
    assert is_undone(case[1], result, back(case[0], result, case[2], False))


@every_g
@dtypes
@every_batch
@pytest.mark.parametrize("hidden", [1, 17])
@pytest.mark.parametrize("often", [0.0, 0.1])
def test_a_grid_of_packed_sequences(sizes, hidden, dtype, activation, often):
    """The bits of the library's kernels, words included, and undone."""
    z, states, weights, *packing = make_packed_case(sizes, hidden, dtype, activation, often)
    wanted = forward(z, states, weights, False, *packing)
    result = run(z, states, weights, False, *packing)
    assert_same_bits(result, wanted)
    assert is_undone(states, result, back(z, result, weights, False, *packing))


@pytest.mark.parametrize("f", ACTIVATIONS)
@pytest.mark.parametrize("couplings", range(6))
@sizes
def test_a_grid_gives_the_bits_of_the_vectors(size, couplings, f):
    case = make_case(33, *size, couplings, torch.float32, f=f)
    lanes, vectors = run(*case, False), forward(*case, True)
    for field in ("out", "h", "c", "saved", "scales"):
        assert torch.equal(getattr(lanes, field), getattr(vectors, field))
    assert bits_of(lanes) == bits_of(vectors)


def test_a_pass_that_keeps_no_words_has_the_same_states():
    case = make_case(40, 2, 9, 2, torch.float64, "relu")
    z, states, weights = case
    kept = run(*case, False)
    dropped = run(z, states, weights, False, record=False)
    assert_same_bits(kept[:4], dropped[:4])
    assert len(dropped.words) == 0


def test_another_number_of_stacks_is_refused():
    case = make_case(4, 2, 9, 2, torch.float64)
    result = list(run(*case, False))
    result[5] = result[5][:-1]
    with pytest.raises(ValueError, match="starts must be Long of shape .18.*got .*17"):
        back(case[0], result, case[2], False)
