"""The scan by the functions of a CUDA thread, which the CPU runs over a grid (``gpu_threads.py``).

Blocks have 16 threads here, so most shapes leave the last one partial.
"""

import itertools
from functools import partial

import pytest
import torch

from irevrnn.kernels import reference
from irevrnn.kernels.activations import ACTIVATIONS
from tests import cases
from tests.cases import (
    STATES,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    make_inputs,
    make_packed,
)
from tests.library.gpu_threads import by_gpu_threads

pytestmark = pytest.mark.usefixtures("kernels")
OPTIONS = list(itertools.product(ACTIVATIONS, ACTIVATIONS))
INTERVALS = (0, 16)  # store and recompute
every_strategy = pytest.mark.parametrize("interval", INTERVALS)


def operator(
    vectorize, activation="relu", coupling_activation="tanh", interval=16, batch_sizes=None,
    resets=None,
):  # fmt: skip
    """The scan as a function of its inputs."""
    options = batch_sizes, activation, coupling_activation, interval, vectorize, resets
    return lambda *case: torch.ops.irevrnn.scan(*case, *options)[:3]


threads, vector = partial(operator, False), partial(operator, True)


def run(kernel, case, *options):
    """Outputs and gradients; the operators have the kernels of the threads."""
    with by_gpu_threads():
        return cases.run(kernel, case, *options)


# --- against the reference -----------------------------------------------------------------------


def random_resets(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.1


@pytest.mark.parametrize("couplings", range(7))
@pytest.mark.parametrize(("shape", "with_resets"), [
    ((1, 1, 1), False), ((33, 3, 11), False), ((16, 2, 8), False), ((70, 1, 17), False),
    ((150, 3, 11), True),
], ids=str)  # fmt: skip
def test_equals_the_reference(shape, with_resets, couplings):
    """One thread, partial blocks, a full block; R unrolled and not; segments cut short."""
    case, resets = make_inputs(*shape, couplings, torch.float64), None
    if with_resets:
        resets = random_resets(*shape[:2])
        resets[[0, 64, 128], 1] = True
    for options in [("relu", "tanh"), ("leaky_relu", "sigmoid")]:
        wanted = run(partial(reference.scan, resets=resets), case, *options)
        for interval in INTERVALS:
            assert_near(run(threads(*options, interval, resets=resets), case), wanted, 1e-11)


def test_a_batch_that_is_summed_in_several_passes():
    """Groups of 32 sequences: 33 of them take two passes, 1100 take three."""
    for batch in (33, 1100):
        case = make_inputs(3, batch, 2, 1, torch.float64)
        assert_near(run(threads(), case), run(reference.scan, case), 1e-12)


@pytest.mark.parametrize("couplings", [0, 1, 4, 5])
@every_strategy
@pytest.mark.parametrize("with_resets", [False, True])
def test_packed_sequences(with_resets, couplings, interval):
    case, sizes = make_packed("around a segment", 5, couplings)
    packing = {"batch_sizes": sizes, "resets": random_resets(len(case.z)) if with_resets else None}
    wanted = run(partial(reference.scan, **packing), case)
    assert_near(run(threads(interval=interval, **packing), case), wanted, 1e-11)


# --- to the last bit -----------------------------------------------------------------------------


@pytest.mark.parametrize("couplings", range(7))
@every_strategy
def test_the_vector_kernel_has_the_same_bits(couplings, interval):
    """All but the gradients of the weights, which are summed over lanes in another order."""
    case, resets = make_inputs(80, 3, 43, couplings, torch.float32), random_resets(80, 3)
    for *options, anew in [*((g, f, None) for g, f in OPTIONS), ("tanh", "tanh", resets)]:
        options = *options, interval, None, anew
        got = run(threads(*options), case)
        wanted = cases.run(vector(*options), case)  # by the library
        assert_same_bits(got[STATES], wanted[STATES])
        assert_near(got, wanted, 2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("couplings", [0, 1, 3, 4, 5])
def test_store_and_recompute_have_the_same_bits(dtype, couplings):
    """The gradients of the weights, too: both sum segments of 16 steps."""
    case = make_inputs(70, 5, 7, couplings, dtype)
    for options in OPTIONS:
        stored, recomputed = (run(threads(*options, i), case) for i in INTERVALS)
        assert_same_bits(stored, recomputed)


def test_any_number_of_processors_gives_the_same_bits():
    case = make_inputs(60, 40, 7, 3, torch.float32)
    assert_same_with_any_threads(lambda: run(threads(), case))
