"""Fixed point over sequences of different length: each as if it were alone, and undone."""

import pytest
import torch

from irevrnn.strategies.fixed_scan import States
from irevrnn.strategies.rules import SEGMENT
from tests.library.test_fixed_point import ACTIVATIONS, FRACTION_BITS, KERNELS, make_case

pytestmark = pytest.mark.usefixtures("kernels")
kernels_of_all_kinds = pytest.mark.parametrize("kernel", KERNELS)
#: Sequences that have each step. In the second, some of the batch have ended before.
SIZES = {
    "falling": ([5] * 3 + [4] * 20 + [2] * 17 + [1] * 9, 5),
    "ended before": ([3] * 30 + [1] * 2, 6),
    "a step each": ([7, 6, 5, 4, 3, 2, 1], 7),
    "all": ([4] * 40, 4),
    "one": ([1], 1),
}
batches = pytest.mark.parametrize("sizes", SIZES)


def make_packed(sizes, hidden, dtype, activation="leaky_relu", often=0.0):
    """z (N, H), batch sizes, resets (N,), and states and weights as in ``make_case``."""
    counts, batch = SIZES[sizes]
    z, states, weights = make_case(len(counts), batch, hidden, 2, dtype, activation)
    rows = [z[t, :count] for t, count in enumerate(counts)]
    drawn = torch.Generator().manual_seed(5)
    resets = torch.rand(sum(counts), generator=drawn) < often
    return torch.cat(rows), torch.tensor(counts), resets, states, weights


def forward(z, counts, resets, states, weights, vectorize):
    """(out, h_n, c_n, tails, words, counts, saved, bad_step)."""
    return torch.ops.irevrnn.fixed_scan(
        z, *states, *weights, True, True, vectorize, resets, counts
    )  # fmt: skip


def back(z, counts, resets, result, weights, vectorize):
    """(out, h_0, c_0, tails, counts_left, saved)."""
    _, h, c, tails, words, held, _, _ = result
    states = States(h, c, tails, FRACTION_BITS, len(counts))
    starts = held.cumsum(0) - held
    return torch.ops.irevrnn.fixed_unscan(
        z, *states, words, starts, held, *weights, vectorize, resets, counts
    )  # fmt: skip


def assert_undone(states, result, undone):
    assert torch.equal(undone[0], result[0]) and torch.equal(undone[5], result[6])
    assert torch.equal(undone[1], states.h) and torch.equal(undone[2], states.c)
    assert (undone[3] == 1).all() and (undone[4] == 0).all()


@kernels_of_all_kinds
@batches
@pytest.mark.parametrize("hidden", [1, 7, 33, 64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("often", [0.0, 0.1])
def test_packed_sequences_are_as_each_alone_and_undone(kernel, sizes, hidden, activation, often):
    dtype, vectorize = KERNELS[kernel]
    case = make_packed(sizes, hidden, dtype, activation, often)
    z, counts, resets, states, weights = case
    result = forward(*case, vectorize)
    assert result[7] == -1
    starts = counts.cumsum(0) - counts
    for sequence in range(len(states.h)):
        rows = starts[counts > sequence] + sequence
        h, c = states.h[sequence, None], states.c[sequence, None]
        if len(rows):
            alone = States(h, c, states.tails, FRACTION_BITS)
            out, h, c, *_ = torch.ops.irevrnn.fixed_scan(
                z[rows, None], *alone, *weights, True, True, vectorize, resets[rows, None]
            )
            assert torch.equal(out[:, 0], result[0][rows])
        assert torch.equal(h[0], result[1][sequence]) and torch.equal(c[0], result[2][sequence])
    assert_undone(states, result, back(*case[:3], result, weights, vectorize))


@kernels_of_all_kinds
def test_control_other_batch_sizes_undo_nothing(kernel):
    dtype, vectorize = KERNELS[kernel]
    z, counts, resets, states, weights = make_packed("falling", 33, dtype)
    result = forward(z, counts, resets, states, weights, vectorize)
    counts = counts.clone()
    counts[2] -= 1
    counts[-1] += 1
    other = torch.tensor(sorted(counts.tolist(), reverse=True))
    undone = back(z, other, resets, result, weights, vectorize)
    assert not torch.equal(undone[1], states.h)


@kernels_of_all_kinds
def test_what_is_saved_lies_as_the_gradient_reads_it(kernel):
    """As float's ``recompute`` has it: c where segments begin."""
    dtype, vectorize = KERNELS[kernel]
    z, counts, _, states, weights = make_packed("falling", 33, dtype)
    found = forward(z, counts, None, states, weights, vectorize)[6]
    h_0, c_0 = states.values(dtype)
    arguments = z, h_0, c_0, *weights[:3], counts, *weights[3:], SEGMENT, vectorize
    saved = torch.ops.irevrnn.scan(*arguments)[3]
    torch.testing.assert_close(found, saved, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.flip(0), "batch_sizes must fall"),
    (lambda c: c[:-1], "batch_sizes must sum"),
    (lambda c: c.int(), "batch_sizes must be"),
])  # fmt: skip
def test_batch_sizes_that_do_not_fit(change, message):
    z, counts, resets, states, weights = make_packed("falling", 7, torch.float32)
    with pytest.raises(ValueError, match=message):
        forward(z, change(counts), resets, states, weights, True)
