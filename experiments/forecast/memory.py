"""The step of a method whose peak memory is measured."""

from __future__ import annotations

from collections.abc import Callable

import torch

from experiments.forecast.data import LEVELS
from experiments.forecast.training import METHODS, Settings, pieces

#: Steps of a recording of the database, less the last, which is predicted alone.
STEPS = 649_999


def one_step(settings: Settings, name: str) -> Callable[[], object]:
    """Prepare a backward pass of a method over its longest piece, of random numbers."""
    method = METHODS[name]
    network = settings.network(method.piece)
    x = torch.rand(1, (settings.steps or STEPS + 1) - 1, 2)
    x[..., 1] = (x[..., 1] * (LEVELS - 1)).round()
    piece = pieces(x, method.piece)[0]

    def step(part: torch.Tensor) -> None:
        network(part)[0].mean().backward()

    step(x[:, :100])
    return lambda: step(piece)
