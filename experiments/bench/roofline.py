"""What the scan has to do, and the least time that this takes at given rates: its floor.

Counted for each unit and step of a sequence, for R couplings of at least 1 (the activations are
``tanh`` inside and ``relu`` outside), with a multiplication, an addition or a fused pair of both as
one multiply-add:

- The forward pass takes 2R ``tanh`` and 2R + 2 multiply-adds: ``u * h``, two for each coupling
  (equation ``eq:coupling``), and ``z + p``.
- The backward pass first replays the couplings, as ``memory="recompute"`` holds none of their
  values: 2R ``tanh`` and 2R + 1 multiply-adds once more. Then come 8R + 3 for the gradient
  (equation ``eq:gradient``): for each coupling two slopes, two gradients of weights and two steps
  back of two each; the slope of the output, the gradient of u, and the way to the step before.
- Every tensor is read or written once: forward reads z and writes the output, and c once every
  :data:`irevrnn.strategies.rules.SEGMENT` steps; backward reads the arriving gradient, the output and the
  saved c, and writes the gradient of z. States and weights come on top (:mod:`experiments.bench.traffic`).

The arithmetic takes the sum of both parts, as they share the processor's multipliers. It can go on
while memory is read and written, so the floor is the larger of the two times (the roofline of
Williams, Waterman and Patterson, 2009). The rates are measured (:mod:`experiments.bench.rates`).

What the floor leaves out, and why the scan cannot meet it: loads, stores and addresses, the
comparison of ``relu``, the rows of weights and sums that go through the cache, and the waiting of a
step for the step before, which counts where a thread has few lanes. On the other side, it is no law
of nature. A better ``tanh`` than ours would lower it. The division in ``tanh`` may overlap with
other arithmetic on some processors. And where a sequence fits the cache, its bytes move faster than
the rate of a large copy says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from experiments.bench.recurrences import Shape
from experiments.bench.traffic import backward_bytes, forward_bytes


class Work(NamedTuple):
    """Numbers that go through ``tanh``, multiply-adds, and bytes that are read or written."""

    tanh: int
    multiply_adds: int
    bytes: int

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*(mine + its for mine, its in zip(self, other, strict=True)))


class Rates(NamedTuple):
    """How much of each one thread does in a second."""

    tanh: float
    multiply_adds: float
    bytes: float


class Floor(NamedTuple):
    """The least milliseconds, and what they consist of."""

    tanh_ms: float
    multiply_adds_ms: float
    bytes_ms: float

    @property
    def arithmetic_ms(self) -> float:
        """Of both kinds together."""
        return self.tanh_ms + self.multiply_adds_ms

    @property
    def floor_ms(self) -> float:
        """The larger of arithmetic and bytes."""
        return max(self.arithmetic_ms, self.bytes_ms)


def forward_work(shape: Shape) -> Work:
    """What the forward pass of a float32 scan does under ``memory="recompute"``."""
    units, couplings = _units(shape)
    moved = forward_bytes(*shape, torch.float32, "recompute")
    return Work(2 * couplings * units, (2 * couplings + 2) * units, moved)


def backward_work(shape: Shape) -> Work:
    """What the backward pass does: the replay and the gradient."""
    units, couplings = _units(shape)
    moved = backward_bytes(*shape, torch.float32, "recompute", sums_apart=False)
    return Work(2 * couplings * units, (2 * couplings + 1 + 8 * couplings + 3) * units, moved)


def _units(shape: Shape) -> tuple[int, int]:
    """T * B * H, and R.

    Raises:
        ValueError: without couplings, of which the counts do not hold.
    """
    if shape.couplings < 1:
        raise ValueError(f"couplings must be at least 1; got {shape.couplings}")
    return shape.steps * shape.batch * shape.hidden, shape.couplings


def floor(shape: Shape, rates: Rates) -> Floor:
    """The least time of a forward and a backward pass by one thread.

    Args:
        shape: (T, B, H, R), R at least 1.
        rates: what a thread does in a second.
    """
    work = forward_work(shape) + backward_work(shape)
    return Floor(*(1e3 * amount / rate for amount, rate in zip(work, rates, strict=True)))
