"""Measure the rates of one thread: the yardsticks of :mod:`experiments.bench.roofline`.

- ``tanh``: that of the couplings (``csrc/activations.h``), over and over on numbers that stay in
  the first cache, in packs that do not wait for each other.
- ``multiply_adds``: fused multiply-adds in registers, twelve chains of vectors at once.
- ``bytes``: those read and written when a tensor is copied that no cache holds, into memory that
  has been written before, so that no page has to be got from the system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.bench.measure import Timing
from experiments.bench.roofline import Rates
from irevrnn.jit.build import build_extension

#: Numbers that are worked on: 12 KiB, and whole packs for vectors of every width.
NUMBERS = 3072
#: Times that they go through ``tanh`` or a multiply-add: some milliseconds.
PASSES = {"tanh": 4000, "multiply_adds": 50_000}
#: Numbers in the tensor that is copied: 256 MiB.
COPIED = 1 << 26


class Yardstick(NamedTuple):
    """Something to time, and how much of it a run does."""

    run: Callable[[], object]
    amount: int


@cache
def operators() -> Any:
    """Return the operators of ``rates.cpp``, building them if the cache lacks them.

    Raises:
        BuildError: they cannot be built.
    """
    torch.ops.load_library(build_extension("irevrnn_rates", [Path(__file__).with_suffix(".cpp")]))
    return torch.ops.irevrnn_rates


def yardsticks(copied: int = COPIED) -> dict[str, Yardstick]:
    """Return one for each rate of :class:`~experiments.bench.roofline.Rates`, to be timed.

    Args:
        copied: numbers in the tensor that is copied.

    Raises:
        BuildError: the C++ operators cannot be built.
    """
    numbers = torch.rand(NUMBERS)
    source, target = torch.zeros(copied), torch.zeros(copied)
    repeat = {
        "tanh": operators().repeat_tanh,
        "multiply_adds": operators().repeat_multiply_add,
    }
    sticks = {
        name: Yardstick(partial(operator, numbers, PASSES[name]), NUMBERS * PASSES[name])
        for name, operator in repeat.items()
    }
    return {**sticks, "bytes": Yardstick(lambda: target.copy_(source), 2 * source.nbytes)}


def rates_of(sticks: Mapping[str, Yardstick], times: Mapping[str, Timing]) -> Rates:
    """Return the rates of the shortest times of :func:`yardsticks`.

    What disturbs the machine must not make its limit look lower than it is.
    """
    shortest = {name: min(times[name].seconds) for name in sticks}
    return Rates(**{name: stick.amount / shortest[name] for name, stick in sticks.items()})
