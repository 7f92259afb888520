"""The scan by the functions of a CUDA thread, which the CPU runs over a grid (``gpu_threads.py``).

Blocks have 16 threads here, so most shapes leave the last one partial.
"""

import itertools
from functools import partial

import pytest
import torch
from torch.library import opcheck
from torch.nn.utils.rnn import pack_sequence

from irevrnn import reference
from irevrnn.activations import ACTIVATIONS
from irevrnn.ops import HALF, NOTHING_SAVED, saved_shape
from tests import cases
from tests.cases import (
    STATES,
    Inputs,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    make_inputs,
    make_packed,
    opcheck_scan,
)
from tests.library.gpu_threads import by_gpu_threads

pytestmark = pytest.mark.usefixtures("kernels")
INTERVALS = {"store": 0, "recompute": 16}
OPTIONS = list(itertools.product(ACTIVATIONS, ACTIVATIONS))
of_a_half = pytest.mark.parametrize("half", HALF, ids=["bfloat16", "float16"])
EVERY_INTERVAL = (0, 16, 5, 64)
every_strategy = pytest.mark.parametrize("interval", EVERY_INTERVAL)


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


@pytest.fixture
def library_with_threads():
    with by_gpu_threads():
        yield


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
        for interval in EVERY_INTERVAL:
            assert_near(run(threads(*options, interval, resets=resets), case), wanted, 1e-11)


@pytest.mark.parametrize(("activation", "coupling_activation"), OPTIONS)
@pytest.mark.parametrize("couplings", [2, 5])
def test_every_pair_of_activations(activation, coupling_activation, couplings):
    case = make_inputs(40, 3, 7, couplings, torch.float64)
    options = (activation, coupling_activation)
    wanted = run(reference.scan, case, *options)
    for interval in INTERVALS.values():
        assert_near(run(threads(*options, interval), case), wanted, 1e-12)


@pytest.mark.parametrize("interval", [0, 16])
def test_a_long_sequence(interval):
    case = make_inputs(5000, 2, 6, 2, torch.float64, scale=0.01)
    wanted = run(reference.scan, case, "tanh")
    assert_near(run(threads("tanh", interval=interval), case), wanted, 1e-10)


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
@pytest.mark.parametrize("interval", [0, 16, 40])
def test_the_vector_kernel_has_the_same_bits(couplings, interval):
    """All but the gradients of the weights, which are summed over lanes in another order."""
    case = make_inputs(50, 3, 43, couplings, torch.float32)
    for options in OPTIONS:
        got = run(threads(*options, interval), case)
        wanted = cases.run(vector(*options, interval), case)  # by the library
        assert_same_bits(got[STATES], wanted[STATES])
        assert_near(got, wanted, 2e-4)


@pytest.mark.parametrize("couplings", range(6))
@every_strategy
def test_resets_give_the_bits_of_the_vectors(couplings, interval):
    case, resets = make_inputs(150, 3, 43, couplings, torch.float32), random_resets(150, 3)
    options = "tanh", "tanh", interval, None, resets
    got, wanted = run(threads(*options), case), cases.run(vector(*options), case)
    assert_same_bits(got[STATES], wanted[STATES])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("couplings", [0, 1, 3, 4, 5])
def test_store_and_recompute_have_the_same_bits(dtype, couplings):
    """The gradients of the weights, too: both sum segments of 16 steps."""
    case = make_inputs(70, 5, 7, couplings, dtype)
    for options in OPTIONS:
        stored, recomputed = (run(threads(*options, i), case) for i in INTERVALS.values())
        assert_same_bits(stored, recomputed)


def test_control_one_bit_in_a_saved_state_is_seen():
    case = make_inputs(40, 2, 9, 3, torch.float32)
    options = (None, "relu", "tanh", 16, False)
    with torch.no_grad(), by_gpu_threads():
        out, _, _, saved = torch.ops.irevrnn.scan(*case, *options)
        upstream = (torch.ones_like(out), None, None)
        good, bad = (
            torch.ops.irevrnn.scan_backward(*upstream, out, x, *case[1:], *options)
            for x in (saved, torch.nextafter(saved, saved + 1))
        )
    assert not torch.equal(good[4], bad[4])


def test_any_number_of_processors_gives_the_same_bits():
    case = make_inputs(60, 40, 7, 3, torch.float32)
    assert_same_with_any_threads(lambda: run(threads(), case))


# --- half precision in and out, float32 within ---------------------------------------------------


def make_half(half, steps=40, batch=3, hidden=11, couplings=3):
    """z in half precision, the rest in float32."""
    case = make_inputs(steps, batch, hidden, couplings, torch.float32)
    return case._replace(z=case.z.detach().to(half).requires_grad_())


def widened(kernel, half):
    """The same with sequences converted before and after."""

    def scan(z, *rest):
        out, h_n, c_n = kernel(z.float(), *rest)
        return out.to(half), h_n, c_n

    return scan


@of_a_half
@pytest.mark.parametrize("couplings", [0, 1, 3, 4, 5])
@every_strategy
def test_halves_have_the_bits_of_their_conversion(half, couplings, interval):
    """Nothing is lost but in z, out and their gradients: the state never is a half."""
    case = make_half(half, couplings=couplings)
    for options in OPTIONS:
        kernel = threads(*options, interval)
        got, wanted = run(kernel, case), run(widened(kernel, half), case)
        assert [x.dtype for x in got] == [x.dtype for x in wanted]
        assert_same_bits(got, wanted)


@of_a_half
@pytest.mark.parametrize("couplings", [0, 3, 5])
@every_strategy
def test_halves_with_resets(half, couplings, interval):
    case, resets = make_half(half, 150, couplings=couplings), random_resets(150, 3)
    kernel = threads("tanh", interval=interval, resets=resets)
    assert_same_bits(run(kernel, case), run(widened(kernel, half), case))


@of_a_half
def test_control_a_state_in_half_precision_is_seen(half):
    case = make_half(half)
    rounded = case._replace(c_0=case.c_0.detach().to(half).float().requires_grad_())
    got, wanted = run(threads(), case), run(threads(), rounded)
    assert not torch.equal(got[2], wanted[2])


@of_a_half
@pytest.mark.parametrize("interval", [0, 16])
def test_packed_halves(half, interval):
    lengths = [40, 33, 16, 15, 1]
    dense = make_half(half, max(lengths), len(lengths))
    packed = pack_sequence([dense.z[:n, i].detach() for i, n in enumerate(lengths)])
    case, sizes = dense._replace(z=packed.data.requires_grad_()), packed.batch_sizes
    kernel = threads(interval=interval, batch_sizes=sizes)
    assert_same_bits(run(kernel, case), run(widened(kernel, half), case))


@of_a_half
@pytest.mark.parametrize("interval", [0, 16, NOTHING_SAVED])
@pytest.mark.parametrize("packed", [False, True])
def test_opcheck_of_halves(half, interval, packed, library_with_threads):
    case, sizes = make_half(half), None
    if packed:
        sizes = torch.full((40,), 3)
        case = case._replace(z=case.z.detach().flatten(0, 1).requires_grad_())
    if interval == NOTHING_SAVED:
        case = Inputs(*(x.detach() for x in case))
    options = (sizes, "tanh", "tanh", interval, False)
    if interval == NOTHING_SAVED:
        opcheck(torch.ops.irevrnn.scan.default, (*case, *options))
        return
    saved = opcheck_scan(case, *options)
    assert saved.shape == saved_shape(case.z, case.h_0, sizes, 3, interval)


@of_a_half
def test_second_derivative_of_halves(half, library_with_threads):
    case = make_half(half, steps=6, couplings=2)

    def second(kernel):
        out, h_n, c_n = kernel(*case)
        loss = out.float().square().sum() + h_n.sum() + c_n.square().sum()
        first = torch.autograd.grad(loss, case, create_graph=True)
        return torch.autograd.grad(sum(x.float().square().sum() for x in first), case)

    wanted = second(widened(threads("tanh"), half))
    for name, x, y in zip(Inputs._fields, second(threads("tanh")), wanted, strict=True):
        error = (x.double() - y.double()).norm() / y.double().norm()
        assert error < 8 * torch.finfo(half).eps, name
