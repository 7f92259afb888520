"""Tones that are buried in noise: a task that a network learns within seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noisy_tones(
    batch: int,
    steps: int,
    periods: Sequence[float],
    noise: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw sine waves of random phase in white noise.

    Args:
        batch, steps: B and T.
        periods: of the waves, in steps; each sequence has one of them.
        noise: standard deviation, where the waves have an amplitude of 1.
        generator: that draws them, or else PyTorch's own.

    Returns:
        The sequences (B, T, 1), float32, and which of the periods each has, (B,), int64.
    """
    labels = torch.randint(len(periods), (batch,), generator=generator)
    phases = torch.rand(batch, 1, generator=generator)
    cycles = torch.arange(steps) / torch.tensor(periods)[labels].unsqueeze(1) + phases
    waves = torch.sin(2 * torch.pi * cycles)
    return (waves + noise * torch.randn(batch, steps, generator=generator)).unsqueeze(2), labels
