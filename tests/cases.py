"""Inputs that provoke what goes wrong in a recurrence: awkward weights, states other than zero."""

import itertools
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

#: Recurrent weights at which a wrong inverse or a wrong gradient shows.
AWKWARD_WEIGHTS = (0.0, 1e-6, -1e-6, 1.0, -1.0)
#: Where there are resets.
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


def make_resets(kind, steps, batch):
    """(T, B), with no two sequences alike where there may be a difference."""
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


def upstream(outputs: tuple[Tensor, ...], seed: int = 1) -> tuple[Tensor, ...]:
    """Random upstream gradients for every output."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs
    )


def run(function, case: Inputs, *options, **keywords) -> tuple[Tensor, ...]:
    """Outputs and gradients of ``function``, nine tensors, with 0 where nothing depends."""
    outputs = function(*case, *options, **keywords)
    gradients = torch.autograd.grad(
        outputs, case, upstream(outputs), allow_unused=True, materialize_grads=True
    )
    return (*(x.detach() for x in outputs), *gradients)


def assert_near(got, wanted, tolerance: float) -> None:
    """Check tensors in float64, with a tolerance relative to the largest entry of each, or to 1."""
    for x, y in zip(got, wanted, strict=True):
        bound = tolerance * max(1.0, y.abs().max().item() if y.numel() else 0.0)
        torch.testing.assert_close(x.double(), y.double(), rtol=0, atol=bound)


def assert_same_with_any_threads(compute, counts=(1, 2, 3, 1)) -> None:
    """Check that ``compute`` returns the same bits each time, whatever the number of threads.

    Denormal numbers stay what they are, unlike in ``experiments.process.threads``: threads that
    start while they are flushed to zero would flush them in later tests, too.
    """
    before, results = torch.get_num_threads(), []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(compute())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_same_bits(result, results[0])
