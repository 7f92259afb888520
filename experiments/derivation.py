"""Random problems, and the source code of functions, for the notebooks of the derivation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from IPython.display import Markdown
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


def show_source(*functions: Callable[..., Any]) -> Markdown:
    """Return the source code of functions, as Markdown that a notebook shows in colour."""
    sources = "\n".join(inspect.getsource(function) for function in functions)
    return Markdown(f"```python\n{sources}```")
