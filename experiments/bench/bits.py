"""Count the bits that the fixed-point kernel puts on its bit stacks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_point import stored_bits
from irevrnn.recurrences.oscillator import Weights


def bits_per_step(run: fixed_scan.Pass, words: Tensor) -> float:
    """Return the bits on the stacks per unit and step.

    They are in whole words, and in partial words, before each of which stands a 1.
    """
    partial = sum(word.bit_length() - 1 for word in run.after.partial_words.tolist())
    return (32 * len(words) + partial) / run.out.numel()


def count_bits(
    u: float, activation: str, steps: int, batch: int = 4, hidden: int = 64
) -> dict[str, float]:
    """Run units of one recurrent weight, below 1, over noise, and count what they store.

    Returns ``bits`` per unit and step on the stacks; those ``stored`` by ``eq:stored``, and the
    lower ``bound`` by ``eq:forgotten``. The last two have the bits of
    ``leaky_relu`` with them, two in each step with a negative output.
    """
    generator = torch.Generator().manual_seed(0)
    # States are then of order 1 throughout, and need no other scale on the way.
    z = math.sqrt(1 - u**2) * torch.randn(steps, batch, hidden, generator=generator)
    weights = torch.full((hidden,), u)
    couplings = 0.001 * torch.randn(2, 3, hidden, generator=generator)
    start = fixed_scan.States.of(*torch.ones(2, batch, hidden))
    run, words, _ = fixed_scan.forward(
        z,
        start,
        Weights(weights, couplings[0], couplings[1], activation, "tanh"),
        record=True,
    )
    leaks = 2 * (run.out < 0).double().mean().item() if activation == "leaky_relu" else 0.0
    return {
        "bits": bits_per_step(run, words),
        "stored": stored_bits(weights)[0].item() + leaks,
        "bound": -math.log2(weights[0].item()) + leaks,
    }
