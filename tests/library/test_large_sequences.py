"""Sequences too large for the caches, which the kernels write past them."""

import copy

import pytest
import torch

from irevrnn import scan
from tests.cases import (
    STATES,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    make_inputs,
    make_resets,
    run,
)

pytestmark = pytest.mark.usefixtures("kernels")
STEPS = 288  # a half is whole segments, and small enough for the caches
SHAPES = [(32, 128), (33, 127), (257, 16)]  # whole lines; lines that are cut; narrow rows
both = pytest.mark.parametrize("memory", ["store", "recompute"])


def in_halves(z, h, c, *weights, **options):
    """Return a scan in two halves, the second from the states of the first."""
    outputs = []
    for half in z.chunk(2):
        out, h, c = scan(half, h, c, *weights, **options)
        outputs.append(out)
    return torch.cat(outputs), h, c


@both
@pytest.mark.parametrize(("batch", "hidden"), SHAPES)
def test_a_large_sequence_gives_the_bits_of_its_halves(batch, hidden, memory):
    case = make_inputs(STEPS, batch, hidden, 2, torch.float32)
    assert case[0].nbytes > 4 * 2**20 > case[0].nbytes / 2
    whole, halves = (run(function, case, memory=memory) for function in (scan, in_halves))
    assert_same_bits(whole[STATES], halves[STATES])
    assert_near(whole, halves, 1e-3)  # summed in another order


@both
@pytest.mark.parametrize("kind", ["packed", "resets"])
def test_packed_sequences_and_resets_have_the_bits_of_the_scalar_kernel(monkeypatch, memory, kind):
    case, options = make_inputs(STEPS, 65, 127, 1, torch.float32), {"memory": memory}
    if kind == "packed":
        sizes = options["batch_sizes"] = torch.linspace(65, 20, STEPS).long()
        rows = torch.cat([step[:n] for step, n in zip(case.z.detach(), sizes, strict=True)])
        case = case._replace(z=rows.requires_grad_())
    else:
        options["resets"] = make_resets("at random", STEPS, 65)
    vector = run(scan, case, **options)
    monkeypatch.setenv("IREVRNN_BACKEND", "cpp")
    assert case.z.nbytes > 4 * 2**20
    assert_same_bits(vector[STATES], run(scan, case, **options)[STATES])


def test_two_threads_see_what_both_have_written():
    case = make_inputs(STEPS, 32, 128, 1, torch.float32)
    assert_same_with_any_threads(lambda: run(scan, case), counts=(1, 2, 2, 2))


def test_large_results_are_tensors_like_any_other():
    out, _, _ = scan(*(x.detach() for x in make_inputs(STEPS, 32, 128, 1, torch.float32)))
    assert out.untyped_storage().nbytes() == out.nbytes
    kept = out.clone()
    assert torch.equal(out.resize_(STEPS + 1, 32, 128)[:STEPS], kept)
    assert torch.equal(copy.deepcopy(out)[:STEPS], kept)
    assert torch.equal(out.share_memory_()[:STEPS], kept)
