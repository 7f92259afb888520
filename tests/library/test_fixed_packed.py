"""Fixed point over sequences of different length: each as if it were alone, and undone."""

import pytest
import torch

from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.fixed_scan import States
from tests.fixed_cases import (
    back,
    every_batch,
    every_g,
    every_kernel,
    forward,
    is_undone,
    make_packed_case,
)

pytestmark = pytest.mark.usefixtures("kernels")


@every_kernel
@every_batch
@pytest.mark.parametrize("hidden", [7, 64])
@every_g
@pytest.mark.parametrize("often", [0.0, 0.1])
def test_packed_sequences_are_as_each_alone_and_undone(
    dtype, vectorize, sizes, hidden, activation, often
):
    z, states, weights, *packing = make_packed_case(sizes, hidden, dtype, activation, often)
    resets, counts = packing
    result = forward(z, states, weights, vectorize, *packing)
    assert result[7] == -1
    starts = counts.cumsum(0) - counts
    for sequence in range(len(states.h)):
        rows = starts[counts > sequence] + sequence
        h, c = states.h[sequence, None], states.c[sequence, None]
        if len(rows):
            alone = States(
                h, c, states.scales[:, sequence, None], states.partial_words, states.places
            )
            out, h, c, *_ = forward(z[rows, None], alone, weights, vectorize, resets[rows, None])
            assert torch.equal(out[:, 0], result[0][rows])
        assert torch.equal(h[0], result[1][sequence]) and torch.equal(c[0], result[2][sequence])
    assert is_undone(states, result, back(z, result, weights, vectorize, *packing))


@every_kernel
def test_control_other_batch_sizes_undo_nothing(dtype, vectorize):
    z, states, weights, resets, counts = make_packed_case("falling", 33, dtype)
    result = forward(z, states, weights, vectorize, resets, counts)
    counts = counts.clone()
    counts[2] -= 1
    counts[-1] += 1
    other = torch.tensor(sorted(counts.tolist(), reverse=True))
    undone = back(z, result, weights, vectorize, resets, other)
    assert not torch.equal(undone[1].h, states.h)


@every_kernel
def test_what_is_saved_lies_as_the_gradient_reads_it(dtype, vectorize):
    """As float's ``recompute`` has it: c where segments begin."""
    z, states, weights, _, counts = make_packed_case("falling", 33, dtype)
    found = forward(z, states, weights, vectorize, None, counts)[6]
    h_0, c_0 = states.numbers.values(dtype)
    arguments = z, h_0, c_0, *weights[:3], counts, *weights[3:], SEGMENT, vectorize
    saved = torch.ops.irevrnn.scan(*arguments)[3]
    torch.testing.assert_close(found, saved, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.flip(0), "batch_sizes must fall"),
    (lambda c: c[:-1], "batch_sizes that sum to N"),
    (lambda c: c.int(), "batch_sizes must be"),
])  # fmt: skip
def test_batch_sizes_that_do_not_fit(change, message):
    z, states, weights, resets, counts = make_packed_case("falling", 7, torch.float32)
    with pytest.raises(ValueError, match=message):
        forward(z, states, weights, True, resets, change(counts))
