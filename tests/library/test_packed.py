"""Sequences of different length, packed: a sequence knows nothing of the others."""

import pytest
import torch

from irevrnn import scan
from irevrnn.kernels import reference
from tests.cases import (
    LENGTHS,
    Inputs,
    assert_same_with_any_threads,
    make_packed,
    run,
)

pytestmark = pytest.mark.usefixtures("kernels")
every_kind = pytest.mark.parametrize("kind", LENGTHS)


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
    ([3] * 32, "batch_sizes that sum to N; got .99, 9"), ([3, 2, 3], "must fall from at most 3 to"),
    ([3] * 33 + [0], "to 1; got 0"), ([3.0] * 33, r"must be \(T,\) int64 on the CPU; got .* Float"),
])  # fmt: skip
def test_batch_sizes_that_do_not_fit(sizes, complaint):
    case, _ = make_packed("same")
    with pytest.raises(ValueError, match=complaint):
        scan(*case, batch_sizes=torch.tensor(sizes))
