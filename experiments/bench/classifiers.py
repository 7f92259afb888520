"""A training step of a classifier on one batch of signals: what it saves, and its peak memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.bench.measure import growth_of_peak, saved_bytes, wall_clock

#: How often a step is timed.
REPETITIONS = 3


def measure_classifier(
    model: nn.Module, shapes: Sequence[tuple[int, int, int]]
) -> list[dict[str, Any]]:
    """Measure a training step at shapes (batch, steps, features), in a new process.

    Shapes come from the smallest to the largest: what an earlier one has freed is given back.

    Returns:
        For each shape ``batch``, ``steps``, ``saved_bytes`` between forward and backward,
        ``peak_bytes`` that the step adds to the resident memory, and its ``seconds``, the least of
        :data:`REPETITIONS`.
    """
    rows = []
    training_step(model, torch.zeros(2, 64, shapes[0][2]))()  # loads the kernels
    for shape in shapes:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        step = training_step(model, x)
        peak = growth_of_peak(lambda step=step: step)
        rows.append({
            "batch": shape[0], "steps": shape[1], "saved_bytes": saved_by(model, x),
            "peak_bytes": peak, "seconds": min(wall_clock(step) for _ in range(REPETITIONS)),
        })  # fmt: skip
    return rows


def saved_by(model: nn.Module, x: Tensor, lengths: Tensor | None = None) -> int:
    """Count the bytes that the model saves for its backward pass, beside input and parameters."""
    return saved_bytes(
        partial(model, x, lengths=lengths), exclude=(x, *model.parameters()), exclude_output=True
    )


def training_step(
    model: nn.Module, x: Tensor, lengths: Tensor | None = None
) -> Callable[[], object]:
    """Return a function that takes the gradients of a batch whose labels are all 0."""
    labels = torch.zeros(len(x), dtype=torch.int64)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(x, lengths=lengths), labels).backward()

    return step
