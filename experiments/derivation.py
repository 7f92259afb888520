"""Random problems for the notebooks of the derivation."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_problem(
    steps: int, batch: int, hidden: int, couplings: int = 3, deviation: float = 0.1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw inputs of the cell in float64: z, h_0, c_0, u, a, b.

    Args:
        steps, batch, hidden, couplings: T, B, H and R.
        deviation: standard deviation of the coupling weights.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    time_constants = 1000 ** torch.rand(hidden, generator=generator, dtype=torch.float64)
    weights = deviation * normal(2, couplings, hidden)
    return (
        normal(steps, batch, hidden), normal(batch, hidden), normal(batch, hidden),
        torch.exp(-1 / time_constants), weights[0], weights[1],
    )  # fmt: skip


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Return the largest difference over the largest true value."""
    return ((value - truth).abs().max() / truth.abs().max()).item()
