"""Inputs that provoke what goes wrong in a recurrence, scans of them, and comparisons."""

import itertools
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.library import opcheck
from torch.nn.utils.rnn import pack_sequence

from experiments import process
from irevrnn.kernels.activations import ACTIVATIONS

#: Recurrent weights at which a wrong inverse or a wrong gradient shows.
AWKWARD_WEIGHTS = (0.0, 1e-6, -1e-6, 1.0, -1.0)
#: The lengths of packed sequences.
LENGTHS = {
    "one": [1],
    "same": [33, 33, 33],
    "around a segment": [49, 48, 33, 32, 31, 17, 16, 15, 2, 1],
    "long and short": [200, 3, 3, 3, 1],
    "many": [*range(70, 0, -1)],
}
#: The places of resets.
KINDS = ("never", "at first", "at every step", "at random", "one sequence", "around segments")
every_kind = pytest.mark.parametrize("kind", KINDS)
#: Of what ``run`` returns: out, h_n, c_n and the gradients of z, h_0 and c_0.
STATES = slice(6)

#: Compares tensors, or sequences of them. Zeros of both signs are the same; NaN never is.
assert_same_bits = partial(torch.testing.assert_close, rtol=0, atol=0)


class Inputs(NamedTuple):
    z: Tensor
    h_0: Tensor
    c_0: Tensor
    u: Tensor
    a: Tensor
    b: Tensor


def make_inputs(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, *,
    scale: float = 0.1, seed: int = 0,
) -> Inputs:  # fmt: skip
    """Random leaves that require gradients; u holds the awkward weights in its first units."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    u = torch.rand(hidden, generator=generator, dtype=dtype) * 2 - 1
    count = min(hidden, len(AWKWARD_WEIGHTS))
    u[:count] = torch.tensor(AWKWARD_WEIGHTS[:count], dtype=dtype)
    tensors = (
        draw(steps, batch, hidden), draw(batch, hidden), draw(batch, hidden), u,
        scale * draw(couplings, hidden), scale * draw(couplings, hidden),
    )  # fmt: skip
    return Inputs(*(x.requires_grad_() for x in tensors))


def make_packed(kind, hidden=9, couplings=3, dtype=torch.float64):
    """Sequences of different length, packed, and their batch sizes."""
    lengths = LENGTHS[kind]
    dense = make_inputs(max(lengths), len(lengths), hidden, couplings, dtype)
    packed = pack_sequence([dense.z[:n, i].detach() for i, n in enumerate(lengths)])
    return dense._replace(z=packed.data.requires_grad_()), packed.batch_sizes


def make_resets(kind, steps, batch):
    """(T, B), with no two sequences alike where there may be a difference; None for no kind."""
    if kind is None:
        return None
    if kind == "at every step":
        return torch.ones(steps, batch, dtype=torch.bool)
    resets = torch.zeros(steps, batch, dtype=torch.bool)
    if kind == "at first":
        resets[0] = True
    elif kind == "at random":
        resets = torch.rand(steps, batch, generator=torch.Generator().manual_seed(0)) < 0.15
    elif kind == "one sequence":
        resets[steps // 3, batch // 2] = resets[-1, batch // 2] = True
    elif kind == "around segments":
        for i, t in itertools.product(range(batch), (0, 14, 15, 16, 17, 31, 32, 47, 48, 63, 64)):
            if t < steps and (t + i) % 3:
                resets[t, i] = True
    return resets


#: Every g and every f once.
PAIRS = list(zip(ACTIVATIONS, [*ACTIVATIONS][::-1], strict=True))


def upstream(outputs: tuple[Tensor, ...], seed: int = 1) -> tuple[Tensor, ...]:
    """Random upstream gradients for every output."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)
        for x in outputs
    )


def run(function, case: Inputs, *options, **keywords) -> tuple[Tensor, ...]:
    """Outputs and gradients of ``function``, nine tensors, with 0 where nothing depends."""
    outputs = function(*case, *options, **keywords)
    gradients = torch.autograd.grad(
        outputs, case, upstream(outputs), allow_unused=True, materialize_grads=True
    )
    return (*(x.detach() for x in outputs), *gradients)


def opcheck_scan(case: Inputs, *options) -> Tensor:
    """Check the operator, and its backward pass with all upstream gradients and with one."""
    opcheck(torch.ops.irevrnn.scan.default, (*case, *options))
    with torch.no_grad():
        out, h_n, c_n, saved = torch.ops.irevrnn.scan(*case, *options)
    kept = (out, saved, *(x.detach() for x in case[1:]))
    for gradients in ((torch.ones_like(out), h_n, c_n), (None, h_n, None)):
        opcheck(torch.ops.irevrnn.scan_backward.default, (*gradients, *kept, *options))
    return saved


def in_pieces(function, resets, batch_sizes=None):
    """Return a scan with resets that calls ``function`` for each piece of each sequence."""
    steps, batch = len(resets), resets.shape[-1]
    starts, lengths = torch.arange(steps) * batch, [steps] * batch
    if batch_sizes is not None:
        starts = batch_sizes.cumsum(0) - batch_sizes
        lengths = (batch_sizes[:, None] > torch.arange(int(batch_sizes[0]))).sum(0).tolist()

    def of_sequence(index, length, rows, h, c, weights):
        where = starts[:length] + index
        anew = resets.flatten()[where] if batch_sizes is not None else resets[:, index]
        borders = [0, *(t for t in anew.nonzero().flatten().tolist() if t > 0), length]
        pieces = rows[where].unsqueeze(1).split([y - x for x, y in itertools.pairwise(borders)])
        outputs = []
        for first, piece in zip(borders, pieces, strict=False):
            if anew[first]:
                h, c = torch.zeros_like(h), torch.zeros_like(c)
            out, h, c = function(piece, h, c, *weights)
            outputs.append(out.squeeze(1))
        return where, torch.cat(outputs), h, c

    def run_pieces(z, h_0, c_0, *weights):
        rows = z.flatten(0, -2)
        parts = [
            of_sequence(i, length, rows, h_0[i : i + 1], c_0[i : i + 1], weights)
            for i, length in enumerate(lengths)
        ]
        where, outputs, h_n, c_n = (torch.cat(x) for x in zip(*parts, strict=True))
        return outputs[where.argsort()].view(z.shape), h_n, c_n

    return run_pieces


def assert_near(got, wanted, tolerance: float) -> None:
    """Check tensors in float64, with a tolerance relative to the largest entry of each, or to 1."""
    for x, y in zip(got, wanted, strict=True):
        bound = tolerance * max(1.0, y.abs().max().item() if y.numel() else 0.0)
        torch.testing.assert_close(x.double(), y.double(), rtol=0, atol=bound)


def assert_same_with_any_threads(compute, counts=(1, 2, 3, 1)) -> None:
    """Check that ``compute`` returns the same bits each time, whatever the number of threads."""
    results = []
    for count in counts:
        with process.threads(count):
            results.append(compute())
    for result in results[1:]:
        assert_same_bits(result, results[0])
