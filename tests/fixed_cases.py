"""The fixed-point scan and its inverse, called as operators; their oracle, and inputs for them."""

import pytest
import torch

from irevrnn.modules.recurrence import Recurrence
from irevrnn.strategies import fixed_point
from irevrnn.strategies.fixed_point import BitStack, to_value
from irevrnn.strategies.fixed_scan import Buffer, States
from irevrnn.strategies.rules import INVERTIBLE

#: Random walks of the tests' lengths leave the range of the finest unit.
FRACTION_BITS = 18
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
every_g = pytest.mark.parametrize("activation", INVERTIBLE)
every_batch = pytest.mark.parametrize("sizes", BATCH_SIZES)


def make_case(
    steps, batch, hidden, couplings, dtype, activation="leaky_relu", f="tanh", u=None,
    fraction_bits=FRACTION_BITS,
):  # fmt: skip
    """z, states other than zero, and weights from 0.5 to 1, the last of them awkward ones."""
    generator = torch.Generator().manual_seed(100 * steps + 10 * hidden + couplings)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = 0.5 + 0.5 * torch.rand(hidden, generator=generator)
    awkward = torch.tensor([0.0, 1.0, -1.0, 1e-6, -1e-6, -0.75, 0.5, 0.3, 0.25, 1 - 2**-24])
    count = min(hidden, len(awkward))
    weights[hidden - count :] = awkward[:count]
    if u is not None:
        weights.fill_(u)
    # Nothing bounds a state that is coupled through another f than tanh, so couple it little.
    a, b = (0.3 / (2 + couplings) * draw(couplings, hidden) for _ in range(2))
    states = States.of(draw(batch, hidden), draw(batch, hidden), fraction_bits)
    z = draw(steps, batch, hidden)
    return z, states, Recurrence(weights.to(dtype), a, b, activation, f)


def make_packed_case(sizes, hidden, dtype, activation="leaky_relu", often=0.0):
    """z (N, H), states and weights as in ``make_case``, resets (N,), and batch sizes."""
    counts, batch = BATCH_SIZES[sizes]
    z, states, weights = make_case(len(counts), batch, hidden, 2, dtype, activation)
    rows = [z[t, :count] for t, count in enumerate(counts)]
    resets = torch.rand(sum(counts), generator=torch.Generator().manual_seed(5)) < often
    return torch.cat(rows), states, weights, resets, torch.tensor(counts)


def forward(z, states, weights, vectorize, resets=None, batch_sizes=None):
    """(out, h_n, c_n, tails, words, counts, saved, bad_step)."""
    return torch.ops.irevrnn.fixed_scan(
        z, *states, *weights, True, True, vectorize, resets, batch_sizes
    )


def back(
    z, result, weights, vectorize, resets=None, batch_sizes=None, words=None,
    fraction_bits=FRACTION_BITS,
):  # fmt: skip
    """(out, h_0, c_0, tails, counts_left, saved)."""
    _, h, c, tails, kept, counts, *_ = result
    steps = len(z if batch_sizes is None else batch_sizes)
    states = States(h, c, tails, fraction_bits, steps)
    buffer = Buffer(kept if words is None else words, counts.cumsum(0) - counts, counts)
    return torch.ops.irevrnn.fixed_unscan(
        z, *states, *buffer, *weights, vectorize, resets, batch_sizes
    )


def is_undone(states, result, undone):
    """Return whether the inverse met every state of the forward pass and emptied every buffer."""
    out, h, c, tails, left, saved = undone
    pairs = [(result[0], out), (result[6], saved), (states.h, h), (states.c, c)]
    return all(torch.equal(x, y) for x, y in pairs) and not left.any() and bool((tails == 1).all())


def oracle(z, states, weights, resets=None):
    """Outputs, final states, and the stack of each lane."""
    stack, (h, c), out = BitStack(weights.u, z.shape[1]), states[:2], []
    for t, z_t in enumerate(z):
        anew = None if resets is None else resets[t]
        h, c = fixed_point.step(z_t, h, c, *weights[:3], stack, *weights[3:], anew, FRACTION_BITS)
        out.append(to_value(h, z.dtype, FRACTION_BITS))
    return torch.stack(out), h, c, stack


def bits_of(result):
    """Bits on all stacks: in whole words, and in the tails, before each of which stands a 1."""
    tails, words = result[3], result[4]
    return 32 * len(words) + sum(tail.bit_length() - 1 for tail in tails.tolist())


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
