"""The work of the scan, and the least time that it takes at measured rates: its floor.

Counted for each unit and step, for R couplings of at least 1 (``tanh`` inside, ``relu`` outside),
with a multiplication, an addition or a fused pair of both as one multiply-add:

- The forward pass takes 2R ``tanh`` and 2R + 2 multiply-adds: ``u * h``, two for each coupling
  (equation ``eq:coupling``), and ``z + p``.
- The backward pass first replays the couplings, as ``memory="recompute"`` saves none of their
  values: 2R ``tanh`` and 2R + 1 multiply-adds once more. Then come 8R + 3 for the gradient
  (equation ``eq:gradient``): for each coupling two slopes, two gradients of weights, and two times
  two for the gradients of p and c; the slope of the output, and the gradients of u and of the
  state before.
- The bytes are those that every kernel moves which reads each input once and writes each result
  once, in float32. No correct one moves less.

``tanh`` and multiply-adds share the processor's multipliers, so their times add up. They can go on
while memory is read and written, so the floor is the larger of the two times (the roofline of
Williams, Waterman and Patterson, 2009).

The scan cannot meet the floor, which leaves out loads, stores and addresses, the comparison of
``relu``, the rows of weights and sums that go through the cache, and the latency of a step where a
thread has few lanes. Nor is it a law of nature: a better ``tanh`` would lower it, its division may
overlap with other arithmetic, and a sequence that fits the cache moves faster than a large copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.bench.recurrences import Shape
from irevrnn.kernels.jit.build import build_extension
from irevrnn.kernels.ops import SEGMENT
from irevrnn.strategies.rules import LAYERWISE

#: Bytes of a float32 number.
NUMBER = 4
#: Numbers that yardsticks work on: 12 KiB, and whole packs for vectors of every width.
NUMBERS = 3072
#: Times that they go through ``tanh`` or a multiply-add: some milliseconds.
PASSES = {"tanh": 4000, "multiply_adds": 50_000}
#: Numbers in the tensor that is copied: 256 MiB.
COPIED = 1 << 26


class Work(NamedTuple):
    """Numbers that go through ``tanh``, multiply-adds, and bytes that are read or written.

    Also their rates: the amount of each that one thread does in a second.
    """

    tanh: float
    multiply_adds: float
    bytes: float


def forward_work(shape: Shape) -> Work:
    """Count the work of the forward pass of a float32 scan under ``memory="recompute"``."""
    return _work(shape, 2 * shape.couplings + 2, forward_bytes(shape, "recompute"))


def backward_work(shape: Shape) -> Work:
    """Count the work of the backward pass: the replay and the gradient."""
    multiply_adds = 2 * shape.couplings + 1 + 8 * shape.couplings + 3
    return _work(shape, multiply_adds, backward_bytes(shape, "recompute", sums_apart=False))


def _work(shape: Shape, multiply_adds: int, moved: int) -> Work:
    if shape.couplings < 1:
        raise ValueError(f"couplings must be at least 1; got {shape.couplings}")
    units = shape.steps * shape.batch * shape.hidden
    return Work(2 * shape.couplings * units, multiply_adds * units, moved)


def floor(shape: Shape, rates: Work) -> dict[str, float]:
    """Return the least milliseconds of a forward and a backward pass by one thread.

    ``floor_ms`` is the larger of arithmetic (``tanh_ms`` and ``multiply_adds_ms``) and
    ``bytes_ms``.
    """
    both = zip(forward_work(shape), backward_work(shape), rates, strict=True)
    tanh, multiply_adds, moved = (1e3 * (one + other) / rate for one, other, rate in both)
    return {
        "tanh_ms": tanh,
        "multiply_adds_ms": multiply_adds,
        "bytes_ms": moved,
        "floor_ms": max(tanh + multiply_adds, moved),
    }


def forward_bytes(shape: Shape, memory: str) -> int:
    """Count the bytes that a forward pass reads and writes."""
    steps, batch, hidden, couplings = shape
    state, weights = NUMBER * batch * hidden, NUMBER * (1 + 2 * couplings) * hidden
    moved = 2 * steps * state + 4 * state + weights  # z, out; h_0, c_0, h_n, c_n
    return moved + saved_by_kernel(shape, memory)


def backward_bytes(shape: Shape, memory: str, *, sums_apart: bool = True) -> int:
    """Count the bytes of a backward pass with upstream gradients of all three outputs.

    With ``sums_apart``, the gradients of the weights are summed in each lane and written once for
    each, (1 + 2R, B, H), then read to be summed over the batch. On a GPU there is no other way
    without atomics; on a CPU a thread sums over its lanes in the cache.
    """
    steps, batch, hidden, couplings = shape
    state, weights = NUMBER * batch * hidden, NUMBER * (1 + 2 * couplings) * hidden
    partial_sums = 2 * batch * weights if sums_apart else 0
    # grad_out, out and grad_z; h_0, c_0 and the gradients of all states
    moved = 3 * steps * state + 6 * state + 2 * weights + partial_sums
    return moved + saved_by_kernel(shape, memory)


def saved_by_kernel(shape: Shape, memory: str) -> int:
    """Count the bytes that the kernel saves for the backward pass, beside its output."""
    if memory not in LAYERWISE:
        raise ValueError(f"memory must be one of {', '.join(LAYERWISE)}; got {memory!r}")
    stores = memory == "store"
    rows = 2 * shape.couplings * shape.steps if stores else -(-shape.steps // SEGMENT) - 1
    return NUMBER * rows * shape.batch * shape.hidden


@cache
def operators() -> Any:
    """Return the operators of ``rates.cpp``, building them if the cache lacks them."""
    source = Path(__file__).with_name("rates.cpp")
    build_extension("irevrnn_rates", [source])
    return torch.ops.irevrnn_rates


def yardsticks(copied: int = COPIED) -> tuple[dict[str, Callable[[], object]], Work]:
    """Return a function to time for each rate of one thread, and the work that each does.

    - ``tanh``: that of the couplings (``csrc/activations.h``), over and over on numbers that stay
      in the L1 cache, in packs that do not wait for each other.
    - ``multiply_adds``: fused multiply-adds in registers, twelve chains of vectors at once.
    - ``bytes``: those read and written when a tensor of ``copied`` numbers, which no cache holds,
      is copied into memory that has been written before.
    """
    numbers, source, target = torch.rand(NUMBERS), torch.zeros(copied), torch.zeros(copied)
    methods: dict[str, Callable[[], object]] = {
        "tanh": partial(operators().repeat_tanh, numbers, PASSES["tanh"]),
        "multiply_adds": partial(operators().repeat_multiply_add, numbers, PASSES["multiply_adds"]),
        "bytes": lambda: target.copy_(source),
    }
    amounts = {name: NUMBERS * passes for name, passes in PASSES.items()}
    return methods, Work(**amounts, bytes=2 * source.nbytes)


def rates_of(amounts: Work, times: Mapping[str, np.ndarray]) -> Work:
    """Return the rates of the shortest times of :func:`yardsticks`.

    What disturbs the machine must not make its limit look lower than it is.
    """
    return Work(**{name: x / float(times[name].min()) for name, x in amounts._asdict().items()})
