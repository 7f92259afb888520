"""Everything that ``make bench`` measures, in one report.

All methods of a shape are timed in one process, interleaved, forward plus backward, against ours. A
second process does the same with the caching allocator. PyTorch's default allocator gives large
blocks back to the system and pays for each new one page by page: half the time of ``nn.LSTM``, in
some processes and not in others.

Then come stacks, a training step under each strategy (:mod:`experiments.bench.stacks`), the scan
alone against what the machine can do (:mod:`experiments.bench.scans`), and a GPU, where there is
one (:mod:`experiments.bench.gpu`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from experiments.bench import gpu, scans
from experiments.bench.measure import in_fresh_process
from experiments.bench.recurrences import METHODS, OURS, Shape, measure_recurrences
from experiments.bench.roofline import COPIED
from experiments.bench.stacks import NETWORKS, StackShape, measure_stacks
from experiments.process import threads as use_threads
from experiments.provenance import provenance
from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.jit.compiler import BuildError, find_compiler

SHAPES = (
    Shape(784, 32, 128, 3),
    Shape(784, 128, 128, 3),
    Shape(4096, 16, 128, 3),
    Shape(20, 128, 512, 3),
)
#: One sequence, a very long and narrow one, and many short and narrow ones.
EXTREMES = (Shape(784, 1, 128, 3), Shape(100_000, 1, 64, 3), Shape(50, 512, 32, 3))
#: The peers that are nearest to ours, and the one that everyone knows.
STRONGEST = ("lstm", "compiled_chunks", "indrnn")
#: The networks that are measured with the default allocator, too.
WITH_DEFAULT_ALLOCATOR = ("recompute", "reversible", "lstm")


@dataclass(frozen=True)
class Plan:
    """The measurements to make; the defaults are those of ``make bench``.

    Attributes:
        shapes: the shapes where all methods are measured.
        more: shapes where, of the peers, only the :data:`STRONGEST` are measured.
        names: keys of :data:`experiments.bench.recurrences.METHODS`; ours are always measured.
        threads: of PyTorch and the kernels, but for the scan alone.
        repetitions: interleaved rounds; a very slow method runs fewer.
        stacks: stacks that are trained under each strategy.
        floor: shapes where the scan alone is compared with its floor; R is at least 1.
        two_threads: shapes where two threads are compared with one.
        flat: T at which the time of a step is compared.
        packed: shapes of packed sequences, T that of the longest.
        copied: numbers in the tensor whose copy gives the bytes a second.
    """

    shapes: Sequence[Shape] = SHAPES
    more: Sequence[Shape] = ()
    names: Sequence[str] = tuple(METHODS)
    threads: int = 1
    repetitions: int = 9
    stacks: Sequence[StackShape] = (StackShape(784, 32, 128, 128, 2),)
    floor: Sequence[Shape] = SHAPES + EXTREMES
    two_threads: Sequence[Shape] = (Shape(784, 128, 128, 3),)
    flat: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)
    packed: Sequence[Shape] = (Shape(784, 128, 128, 3),)
    copied: int = COPIED


def run(plan: Plan) -> dict[str, Any]:
    """Measure what a plan asks for, and return the report, ready for JSON.

    Only a report of the vectorised kernels has ``floor``, ``two_threads`` (empty on a machine of
    one core), ``flatness`` (None without lengths) and ``packed``.
    """
    chosen = that_can_run(name for name in METHODS if name in {*OURS, *plan.names})
    strongest = [name for name in chosen if name in {*OURS, *STRONGEST}]
    methods = [(shape, chosen) for shape in plan.shapes]
    methods += [(shape, strongest) for shape in plan.more]
    times = plan.repetitions
    with use_threads(plan.threads):
        report: dict[str, Any] = {
            "environment": provenance(),
            "backend": choose_backend("cpu", torch.float32),
            "threads": plan.threads,
            "repetitions": times,
        }
        for key, caching in (("shapes", False), ("shapes_keeping_memory", True)):
            measure = partial(_measure, caching, measure_recurrences)
            report[key] = [measure(shape, names, times) for shape, names in methods]
        for key, networks, caching in (
            ("stacks", tuple(NETWORKS), True),
            ("stacks_as_it_comes", WITH_DEFAULT_ALLOCATOR, False),
        ):
            measure = partial(_measure, caching, measure_stacks)
            report[key] = [measure(stack, networks, times) for stack in plan.stacks]
    if report["backend"] == "vector":
        alone = partial(_measure, True, threads=1)
        pairs = plan.two_threads if len(scans.cores()) > 1 else ()
        report |= {
            "floor": [alone(scans.measure_floor, x, times, plan.copied) for x in plan.floor],
            "two_threads": [alone(scans.measure_threads, shape, times) for shape in pairs],
            "flatness": alone(scans.measure_flatness, plan.flat, times) if plan.flat else None,
            "packed": [alone(scans.measure_packed, shape, times) for shape in plan.packed],
        }
    return report | {"gpu": gpu.run(times)}


def _measure(
    caching: bool, measure: Callable[..., dict[str, Any]], *args: Any, threads: int | None = None
) -> dict[str, Any]:
    print(f"{measure.__name__}{args}, caching allocator: {caching} ...", file=sys.stderr)
    return in_fresh_process(measure, *args, threads=threads, caching_allocator=caching)


def that_can_run(names: Iterable[str]) -> list[str]:
    """Leave out what torch.compile makes where it has no C++ compiler, and say so."""
    try:
        find_compiler()
    except BuildError as error:
        print(f"irevrnn: compiled_chunks cannot be measured here: {error}", file=sys.stderr)
        return [name for name in names if name != "compiled_chunks"]
    return list(names)
