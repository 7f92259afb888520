"""Everything that ``make bench`` measures, in one report.

All methods of a shape are timed in one process, interleaved, forward plus backward, against ours. A
second process does the same with the caching allocator. PyTorch's default allocator gives large
blocks back to the system and pays for each new one page by page: half the time of ``nn.LSTM``, in
some processes and not in others.

Then come stacks, a training step under each strategy (:mod:`experiments.bench.stacks`), very long
sequences, each in a process of its own, the scan alone against what the machine can do
(:mod:`experiments.bench.scans`), and a GPU, where there is one (:mod:`experiments.bench.gpu`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from experiments.bench import gpu, scans
from experiments.bench.measure import environment, in_fresh_process
from experiments.bench.recurrences import METHODS, OURS, Shape, measure_recurrences
from experiments.bench.stacks import NETWORKS, StackShape, measure_length, measure_stacks
from experiments.process import threads as use_threads
from irevrnn.backend import choose_backend
from irevrnn.jit.compiler import BuildError, find_compiler

SHAPES = (
    Shape(784, 32, 128, 3),
    Shape(784, 128, 128, 3),
    Shape(4096, 16, 128, 3),
    Shape(20, 128, 512, 3),
)
#: The peers that are nearest to ours, and the one that everyone knows.
STRONGEST = ("lstm", "compiled_chunks", "indrnn")
REPETITIONS = 9
STACKS = (StackShape(784, 32, 128, 128, 2),)
#: Steps of a sequence of one number that goes through two layers of 64 units.
LENGTHS = (10_000, 1_000_000)
#: The strategies that need a few GB at most at those lengths.
FOR_LENGTHS = ("recompute", "checkpoint", "reversible")


def run(
    shapes: Iterable[Shape] = SHAPES,
    *,
    more: Iterable[Shape] = (),
    names: Sequence[str] = tuple(METHODS),
    threads: int = 1,
    repetitions: int = REPETITIONS,
    stacks: Iterable[StackShape] = STACKS,
    lengths: Iterable[int] = LENGTHS,
    alone: scans.Plan | None = scans.PLAN,
) -> dict[str, Any]:
    """Measure the methods at every shape, and return the report, ready for JSON.

    At the shapes of ``more``, which come last, only the :data:`STRONGEST` of the peers are
    measured. ``names`` are keys of :data:`experiments.bench.recurrences.METHODS`; ours are always
    measured. ``stacks`` are trained under each strategy, ``lengths`` are T of the very long
    sequences, and ``alone`` is the plan for the vectorised scan alone, with the floor of every
    shape; None for nothing. Times are in milliseconds, saved memory in bytes.
    """
    shapes, more, stacks = tuple(shapes), tuple(more), tuple(stacks)
    chosen = that_can_run(name for name in METHODS if name in {*OURS, *names})
    strongest = [name for name in chosen if name in {*OURS, *STRONGEST}]
    with use_threads(threads):
        report: dict[str, Any] = {
            "environment": environment(),
            "backend": choose_backend("cpu", torch.float32),
            "threads": threads,
            "repetitions": repetitions,
            "shapes": [],
            "shapes_keeping_memory": [],
            "stacks": [],
            "stacks_as_it_comes": [],
        }
        for index, shape in enumerate(shapes + more):
            methods = chosen if index < len(shapes) else strongest
            for key, caching in (("shapes", False), ("shapes_keeping_memory", True)):
                entry = _measure(measure_recurrences, shape, methods, repetitions, caching)
                report[key].append(entry)
        for stack in stacks:
            for key, networks, caching in (
                ("stacks", tuple(NETWORKS), True),
                ("stacks_as_it_comes", ("recompute", "reversible", "lstm"), False),
            ):
                entry = _measure(measure_stacks, stack, networks, repetitions, caching)
                report[key].append(entry)
        report["lengths"] = [
            measure_length(name, StackShape(steps, 1, 1, 64, 2))
            for steps in lengths
            for name in FOR_LENGTHS
        ]
    if alone is not None and report["backend"] == "vector":
        report |= scans.run(shapes + more, alone, repetitions)
    report["gpu"] = gpu.run(repetitions)
    return report


def _measure(
    measure: Callable[..., dict[str, Any]],
    shape: Shape | StackShape,
    names: Sequence[str],
    repetitions: int,
    caching: bool,
) -> dict[str, Any]:
    print(f"measuring {shape} with the {allocator(caching)} ...", file=sys.stderr)
    return in_fresh_process(measure, shape, names, repetitions, caching_allocator=caching)


def allocator(caching: bool) -> str:
    """Name the allocator of a process, for tables and messages."""
    return f"{'caching' if caching else 'default'} allocator"


def that_can_run(names: Iterable[str]) -> list[str]:
    """Leave out what torch.compile makes where it has no C++ compiler, and say so."""
    try:
        find_compiler()
    except BuildError as error:
        print(f"irevrnn: compiled_chunks cannot be measured here: {error}", file=sys.stderr)
        return [name for name in names if name != "compiled_chunks"]
    return list(names)
