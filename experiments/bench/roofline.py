"""The work of the scan, and the least time that it takes at given rates: its floor.

Counted for each unit and step, for R couplings of at least 1 (``tanh`` inside, ``relu`` outside),
with a multiplication, an addition or a fused pair of both as one multiply-add:

- The forward pass takes 2R ``tanh`` and 2R + 2 multiply-adds: ``u * h``, two for each coupling
  (equation ``eq:coupling``), and ``z + p``.
- The backward pass first replays the couplings, as ``memory="recompute"`` saves none of their
  values: 2R ``tanh`` and 2R + 1 multiply-adds once more. Then come 8R + 3 for the gradient
  (equation ``eq:gradient``): for each coupling two slopes, two gradients of weights, and two times
  two for the gradients of p and c; the slope of the output, and the gradients of u and of the
  state before.
- The bytes are those of :mod:`experiments.bench.traffic`.

``tanh`` and multiply-adds share the processor's multipliers, so their times add up. They can go on
while memory is read and written, so the floor is the larger of the two times (the roofline of
Williams, Waterman and Patterson, 2009). The rates are measured (:mod:`experiments.bench.rates`).

The scan cannot meet the floor, which leaves out loads, stores and addresses, the comparison of
``relu``, the rows of weights and sums that go through the cache, and the latency of a step where a
thread has few lanes. Nor is it a law of nature: a better ``tanh`` would lower it, its division may
overlap with other arithmetic, and a sequence that fits the cache moves faster than a large copy.
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
    """The amount of each that one thread does in a second."""

    tanh: float
    multiply_adds: float
    bytes: float


class Floor(NamedTuple):
    """The least milliseconds for each part of the work."""

    tanh_ms: float
    multiply_adds_ms: float
    bytes_ms: float

    @property
    def floor_ms(self) -> float:
        """The larger of arithmetic and bytes."""
        return max(self.tanh_ms + self.multiply_adds_ms, self.bytes_ms)


def forward_work(shape: Shape) -> Work:
    """Count the work of the forward pass of a float32 scan under ``memory="recompute"``."""
    units, couplings = _units(shape)
    moved = forward_bytes(*shape, torch.float32, "recompute")
    return Work(2 * couplings * units, (2 * couplings + 2) * units, moved)


def backward_work(shape: Shape) -> Work:
    """Count the work of the backward pass: the replay and the gradient."""
    units, couplings = _units(shape)
    moved = backward_bytes(*shape, torch.float32, "recompute", sums_apart=False)
    return Work(2 * couplings * units, (2 * couplings + 1 + 8 * couplings + 3) * units, moved)


def _units(shape: Shape) -> tuple[int, int]:
    """Return T * B * H, and R, without which the counts do not hold."""
    if shape.couplings < 1:
        raise ValueError(f"couplings must be at least 1; got {shape.couplings}")
    return shape.steps * shape.batch * shape.hidden, shape.couplings


def floor(shape: Shape, rates: Rates) -> Floor:
    """Return the least time of a forward and a backward pass by one thread with these rates."""
    work = forward_work(shape) + backward_work(shape)
    return Floor(*(1e3 * amount / rate for amount, rate in zip(work, rates, strict=True)))
