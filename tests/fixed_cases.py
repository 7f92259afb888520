"""The fixed-point scan and its inverse, called as operators; their oracle, and inputs for them."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from irevrnn.recurrences.block import FORGOTTEN_BITS
from irevrnn.recurrences.fixed_scan import Buffer, States
from irevrnn.recurrences.oscillator import Weights
from tests import fixed_reference

KERNELS = {
    "vector float32": (torch.float32, True),
    "scalar float32": (torch.float32, False),
    "scalar float64": (torch.float64, False),
}
#: Sequences that have each step. In the second, some of the batch have ended before.
BATCH_SIZES = {
    "falling": ([5] * 3 + [4] * 20 + [2] * 17 + [1] * 9, 5),
    "ended before": ([3] * 30 + [1] * 2, 6),
    "a step each": ([7, 6, 5, 4, 3, 2, 1], 7),
    "all": ([4] * 40, 4),
    "one": ([1], 1),
}
every_kernel = pytest.mark.parametrize(("dtype", "vectorize"), KERNELS.values(), ids=KERNELS)
every_g = pytest.mark.parametrize("activation", FORGOTTEN_BITS)
every_batch = pytest.mark.parametrize("sizes", BATCH_SIZES)


class Result(NamedTuple):
    """Hold what a pass returns."""

    out: Tensor
    h: Tensor
    c: Tensor
    partial_words: Tensor
    words: Tensor
    counts: Tensor
    saved: Tensor
    bad_step: int
    scales: Tensor
    places: Tensor


def make_case(
    steps, batch, hidden, couplings, dtype, activation="leaky_relu", f="tanh", u=None, size=1.0
):
    """z, states other than zero, and weights from 0.5 to 1, the last of them awkward ones.

    Numbers are of order ``size``.
    """
    generator = torch.Generator().manual_seed(100 * steps + 10 * hidden + couplings)

    def draw(*shape):
        return (size * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    weights = 0.5 + 0.5 * torch.rand(hidden, generator=generator)
    awkward = torch.tensor([0.0, 1.0, -1.0, 1e-6, -1e-6, -0.75, 0.5, 0.3, 0.25, 1 - 2**-24])
    count = min(hidden, len(awkward))
    weights[hidden - count :] = awkward[:count]
    if u is not None:
        weights.fill_(u)
    # Nothing bounds a state that is coupled through another f than tanh, so couple it little.
    a, b = (0.3 / (2 + couplings) / size * draw(couplings, hidden) for _ in range(2))
    states = States.of(draw(batch, hidden), draw(batch, hidden))
    z = draw(steps, batch, hidden)
    return z, states, Weights(weights.to(dtype), a, b, activation, f)


def make_packed_case(sizes, hidden, dtype, activation="leaky_relu", often=0.0):
    """z (N, H), states and weights as in ``make_case``, resets (N,), and batch sizes."""
    counts, batch = BATCH_SIZES[sizes]
    z, states, weights = make_case(len(counts), batch, hidden, 2, dtype, activation)
    rows = [z[t, :count] for t, count in enumerate(counts)]
    resets = torch.rand(sum(counts), generator=torch.Generator().manual_seed(5)) < often
    return torch.cat(rows), states, weights, resets, torch.tensor(counts)


def forward(z, states, weights, vectorize, resets=None, batch_sizes=None, record=True):
    out, (h, c, scales, partial_words, places), *rest = torch.ops.irevrnn.fixed_scan(
        z,
        states.tensors,
        states.steps,
        *weights.arguments,
        record,
        record,
        vectorize,
        resets,
        batch_sizes,
    )
    return Result(out, h, c, partial_words, *rest, scales, places)


def back(z, result, weights, vectorize, resets=None, batch_sizes=None, words=None):
    """(out, states, counts_left, saved)."""
    r, steps = Result(*result), len(z if batch_sizes is None else batch_sizes)
    buffer = Buffer(r.words if words is None else words, r.counts.cumsum(0) - r.counts, r.counts)
    tensors = [r.h, r.c, r.scales, r.partial_words, r.places]
    out, tensors, left, saved = torch.ops.irevrnn.fixed_unscan(
        z, tensors, steps, *buffer, *weights.arguments, vectorize, resets, batch_sizes
    )
    return out, States.from_tensors(tensors), left, saved


def is_undone(states, result, undone):
    """Return whether the inverse met every state of the forward pass and emptied every buffer."""
    out, before, left, saved = undone
    begun = (states.h != 0) | (states.c != 0)  # others get the scales that their input needs
    scales = (states.scales * begun, before.scales * begun)
    pairs = [
        (result[0], out),
        (result[6], saved),
        *zip(states[:2], before[:2], strict=True),
        scales,
    ]
    empty = (before.partial_words == 1).all() and (before.places == 1).all() and not left.any()
    return all(torch.equal(x, y) for x, y in pairs) and bool(empty)


def oracle(z, states, weights, resets=None):
    """Outputs, final states, and the stack of each lane."""
    stack, x, out = fixed_reference.Stack(weights.u, z.shape[1]), states.numbers, []
    for t, z_t in enumerate(z):
        anew = None if resets is None else resets[t]
        x = fixed_reference.prepare(z[t:], x, *weights[:3], stack, weights[4], anew, t)
        x = fixed_reference.step(z_t, x, *weights[:3], stack, *weights[3:])
        out.append(x.values(z.dtype)[0])
    return torch.stack(out), x, stack


def bits_of(result):
    """Bits on all stacks: in whole words, and in partial words, before each of which is a 1."""
    partial_words, words = result[3], result[4]
    return 32 * len(words) + sum(tail.bit_length() - 1 for tail in partial_words.tolist())


def in_words(pushed):
    """Return the words and the tail of a stack: see Tail in ``csrc/bit_stack.h``."""
    words, tail = [], 1
    for value, bits in pushed:
        tail = tail << bits | value
        if tail >> 32:
            words.append(tail & 0xFFFFFFFF)
            tail >>= 32
    return words, tail


def words_of_lanes(result):
    """The words of each lane, as numbers without a sign, and its tail."""
    parts = result.words.split(result.counts.tolist())
    stacks = [[word & 0xFFFFFFFF for word in part.tolist()] for part in parts]
    return list(zip(stacks, result.partial_words.tolist(), strict=True))
