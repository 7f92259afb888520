"""Sequences of different length, packed: a sequence knows nothing of the others."""

import pytest
import torch

from irevrnn import reference, scan
from irevrnn.activations import ACTIVATIONS
from tests.cases import (
    LENGTHS,
    Inputs,
    assert_same_bits,
    assert_same_with_any_threads,
    in_pieces,
    make_inputs,
    make_packed,
    run,
)

pytestmark = pytest.mark.usefixtures("kernels")
every_kind = pytest.mark.parametrize("kind", LENGTHS)


@every_kind
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_reference_treats_each_sequence_alone(kind, activation):
    case, sizes = make_packed(kind)
    got = run(lambda z, *r: reference.scan(z, *r, batch_sizes=sizes), case, activation)
    never = torch.zeros(len(case.z), dtype=torch.bool)
    wanted = run(in_pieces(reference.scan, never, sizes), case, activation)
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@every_kind
@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("hidden", [1, 9, 64, 130])
@pytest.mark.parametrize("couplings", [0, 3])
def test_kernels_equal_the_reference(kind, memory, hidden, couplings):
    case, sizes = make_packed(kind, hidden, couplings)
    wanted = run(lambda z, *r: reference.scan(z, *r, batch_sizes=sizes), case)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-3)):
        narrow = Inputs(*(x.detach().to(dtype).requires_grad_() for x in case))
        got = run(scan, narrow, memory=memory, batch_sizes=sizes)
        for x, y in zip(got, wanted, strict=True):
            assert (x - y).norm() <= tolerance * (y.norm() + 1e-12), (kind, dtype)


@every_kind
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_both_strategies_give_the_same_bits(kind, activation):
    for dtype in (torch.float32, torch.float64):
        case, sizes = make_packed(kind, dtype=dtype)
        stored, recomputed = (
            run(scan, case, activation, memory=memory, batch_sizes=sizes)
            for memory in ("store", "recompute")
        )
        assert_same_bits(stored, recomputed)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_packed_dense_sequence_gives_the_bits_of_the_dense_one(memory, dtype):
    case = make_inputs(50, 6, 33, 3, dtype)
    flat = case._replace(z=case.z.detach().flatten(0, 1).requires_grad_())
    sizes = torch.full((50,), 6)
    dense = run(scan, case, memory=memory)
    packed = run(scan, flat, memory=memory, batch_sizes=sizes)
    # Upstream gradients are drawn in the same order; shapes apart, all is the same.
    assert_same_bits([x.flatten() for x in packed], [x.flatten() for x in dense])


def test_states_of_sequences_that_have_ended_before_stay():
    case, _ = make_packed("same")
    sizes = torch.full((49,), 2)  # the third sequence has no step at all
    case = case._replace(z=case.z.detach()[:98].requires_grad_())
    _, h_n, c_n = scan(*case, batch_sizes=sizes)
    assert torch.equal(h_n[2], case.h_0[2]) and torch.equal(c_n[2], case.c_0[2])
    got = run(scan, case, batch_sizes=sizes)
    wanted = run(lambda z, *r: reference.scan(z, *r, batch_sizes=sizes), case)
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_any_number_of_threads_gives_the_same_bits(memory):
    case, sizes = make_packed("many", 100, dtype=torch.float32)
    assert_same_with_any_threads(lambda: run(scan, case, memory=memory, batch_sizes=sizes))


@pytest.mark.parametrize(("sizes", "complaint"), [
    ([3] * 32, "sum to the 99 rows"), ([3, 2, 3], "must fall from at most B = 3"),
    ([4] * 24 + [3], "must fall from at most B = 3"),
    ([3] * 33 + [0], "to at least 1"), ([], "to at least 1"),
])  # fmt: skip
def test_batch_sizes_that_do_not_fit(sizes, complaint):
    case, _ = make_packed("same")
    with pytest.raises(ValueError, match=complaint):
        scan(*case, batch_sizes=torch.tensor(sizes, dtype=torch.int64))


def test_batch_sizes_of_the_wrong_kind():
    case, sizes = make_packed("same")
    with pytest.raises(TypeError, match="batch_sizes must be a torch.Tensor; got list"):
        scan(*case, batch_sizes=sizes.tolist())
    with pytest.raises(ValueError, match=r"batch_sizes must be \(T,\), int64"):
        scan(*case, batch_sizes=sizes.int())
    with pytest.raises(ValueError, match=r"z must be \(N, H\) with batch_sizes"):
        scan(*make_inputs(33, 3, 9, 3, torch.float64), batch_sizes=sizes)
