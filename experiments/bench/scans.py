"""The scan alone, forward plus backward in float32.

How near it comes to what the machine can do (:mod:`experiments.bench.roofline`), the speedup of a
second thread, the time of a step at several lengths, and the cost of packed sequences. Every
measurement belongs into a process of its own with the caching allocator, so that none pays for new
pages: :func:`run` sees to that.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench.measure import in_fresh_process, interleaved_times, ratios, wall_clock
from experiments.bench.rates import COPIED, rates_of, yardsticks
from experiments.bench.recurrences import METHODS, Recurrence, Shape, make_problem
from experiments.bench.roofline import floor
from irevrnn.functional import scan

#: B, H and R where the time of a step is compared at several lengths.
FLAT = (4, 64, 3)
#: Numbers of z (T * B * H) that a timing spans at least: shorter sequences are repeated.
SPAN = 8_000_000


@dataclass(frozen=True)
class Plan:
    """The shapes to measure.

    Attributes:
        floor: shapes where the distance from the floor is measured, beside those with peers: one
            sequence, a very long and narrow one, and many short and narrow ones.
        two_threads: shapes where two threads are compared with one.
        flat: T at which the time of a step is compared.
        packed: shapes of packed sequences, T that of the longest.
        copied: numbers in the tensor whose copy gives the bytes a second.
    """

    floor: Sequence[Shape] = (
        Shape(784, 1, 128, 3),
        Shape(100_000, 1, 64, 3),
        Shape(50, 512, 32, 3),
    )
    two_threads: Sequence[Shape] = (Shape(784, 128, 128, 3),)
    flat: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)
    packed: Sequence[Shape] = (Shape(784, 128, 128, 3),)
    copied: int = COPIED


#: The plan of ``make bench``.
PLAN = Plan()


def run(shapes: Iterable[Shape], plan: Plan, repetitions: int) -> dict[str, Any]:
    """Measure what a plan asks for, and the floor of each of the shapes with peers.

    Returns ``floor``, ``two_threads`` and ``packed``, a list of entries each, and ``flatness``,
    which is None where the plan has no lengths. ``two_threads`` is empty on a machine of one core.
    """
    print("measuring the scan alone ...", file=sys.stderr)
    one_thread = partial(in_fresh_process, threads=1, caching_allocator=True)
    floors = [*(shape for shape in shapes if shape.couplings), *plan.floor]
    pairs = plan.two_threads if len(cores()) > 1 else ()
    flat = tuple(plan.flat)
    return {
        "floor": [one_thread(measure_floor, x, repetitions, plan.copied) for x in floors],
        "two_threads": [one_thread(measure_threads, shape, repetitions) for shape in pairs],
        "flatness": one_thread(measure_flatness, flat, repetitions) if flat else None,
        "packed": [one_thread(measure_packed, shape, repetitions) for shape in plan.packed],
    }


def _step(shape: Shape) -> Callable[[], object]:
    """Return forward plus backward of the scan under ``recompute``."""
    problem = make_problem(shape)
    grad_out = torch.randn(problem.z.shape)
    return partial(METHODS["scan"].build(problem).step, problem.z, grad_out)


def _repeated(method: Callable[[], object], times: int) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(times):
            method()

    return repeat


def measure_floor(shape: Shape, repetitions: int, copied: int) -> dict[str, Any]:
    """Compare the scan with its floor, in a process of one thread.

    The rates that the floor takes are the highest of those measured in the same rounds. Returns the
    shape, the times of the scan, ``rates`` (a second), ``tanh_ms``, ``multiply_adds_ms``,
    ``bytes_ms``, ``floor_ms`` and ``over_floor``, the scan's median over it.
    """
    calls = math.ceil(SPAN / (shape.steps * shape.batch * shape.hidden))
    sticks = yardsticks(copied)
    methods = {name: stick.run for name, stick in sticks.items()}
    times = interleaved_times({"scan": _repeated(_step(shape), calls), **methods}, repetitions)
    rates = rates_of(sticks, times)
    least = floor(shape, rates)
    of_scan = times["scan"].per_call(calls).in_milliseconds()
    return {
        **shape._asdict(),
        **of_scan,
        "rates": rates._asdict(),
        **least._asdict(),
        "floor_ms": least.floor_ms,
        "over_floor": of_scan["median_ms"] / least.floor_ms,
    }


def cores() -> list[int]:
    """Return the cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def measure_threads(shape: Shape, repetitions: int) -> dict[str, Any]:
    """Compare two threads with one, also while another process keeps one of two cores busy.

    Confines this process to two cores, for good. Returns the shape, times of ``one`` and ``two``
    threads and of ``two_busy``, beside a busy process, the ``speedup`` of two over one, and
    ``busy``, the time of two threads beside the busy process over that of one thread alone, both
    with quartiles.
    """
    os.sched_setaffinity(0, cores()[:2])  # threads and processes that start later inherit it
    step = _step(shape)

    def on(count: int) -> None:
        torch.set_num_threads(count)
        step()

    one, two, two_busy = partial(on, 1), partial(on, 2), partial(on, 2)

    def clock(method: Callable[[], object]) -> float:
        with busy_process() if method is two_busy else nullcontext():
            return wall_clock(method)

    methods = {"one": one, "two": two, "two_busy": two_busy}
    times = interleaved_times(methods, repetitions, clock=clock)
    low, speedup, high = times["one"].ratio_to(times["two"])
    busy_low, busy, busy_high = times["two_busy"].ratio_to(times["one"])
    return {
        **shape._asdict(),
        "methods": {name: timing.in_milliseconds() for name, timing in times.items()},
        "speedup": speedup,
        "speedup_quartiles": [low, high],
        "busy": busy,
        "busy_quartiles": [busy_low, busy_high],
    }


@contextmanager
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """Keep a core busy with another process, which also ends when this one is killed."""
    spin = ["sh", "-c", "echo; while kill -0 $PPID; do :; done 2>/dev/null"]
    with subprocess.Popen(spin, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # it spins now
        try:
            yield process
        finally:
            process.kill()


def measure_flatness(lengths: Sequence[int], repetitions: int) -> dict[str, Any]:
    """Compare the time of a step at several lengths, with B, H and R of :data:`FLAT`.

    Every length is repeated until it takes as many steps as the longest: the constant cost of a
    call is part of its time. Returns B, H and R, ``lengths`` with ``steps`` and quartiles in
    nanoseconds per step and unit, and ``highest_to_lowest``, the ratio of the medians.
    """
    calls = {steps: math.ceil(max(lengths) / steps) for steps in lengths}
    times = interleaved_times(
        {str(x): _repeated(_step(Shape(x, *FLAT)), count) for x, count in calls.items()},
        repetitions,
    )
    rows = []
    for steps, count in calls.items():
        numbers = count * steps * FLAT[0] * FLAT[1]
        low, median, high = (1e9 * x / numbers for x in times[str(steps)].quartiles)
        rows.append({"steps": steps, "median_ns": median, "low_ns": low, "high_ns": high})
    medians = [row["median_ns"] for row in rows]
    return {
        **dict(zip(Shape._fields[1:], FLAT, strict=True)),
        "lengths": rows,
        "highest_to_lowest": max(medians) / min(medians),
    }


def measure_packed(shape: Shape, repetitions: int) -> dict[str, Any]:
    """Compare B packed sequences of 1 to T steps, uniformly random, with dense ones.

    Returns the shape, ``valid_steps`` of all sequences, the times of ``packed``, of ``same_steps``
    (dense sequences of equal length, with as many valid steps, up to rounding) and of ``padded``
    (the same sequences, each with T steps), and ``ratios`` of ``packed`` to both.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, shape.steps + 1, (shape.batch,), generator=generator)
    sizes = (lengths > torch.arange(int(lengths.max()))[:, None]).sum(1)
    valid = int(lengths.sum())
    methods = {
        "packed": _packed_step(shape, sizes),
        "same_steps": _step(shape._replace(steps=round(valid / shape.batch))),
        "padded": _step(shape),
    }
    times = interleaved_times(methods, repetitions)
    return {
        **shape._asdict(),
        "valid_steps": valid,
        "methods": {name: timing.in_milliseconds() for name, timing in times.items()},
        **ratios(times, {name: ("packed", name) for name in ("same_steps", "padded")}),
    }


def _packed_step(shape: Shape, sizes: Tensor) -> Callable[[], object]:
    problem = make_problem(shape)
    weights = problem[1:]
    z = problem.z.detach().flatten(0, 1)[: int(sizes.sum())].clone().requires_grad_()
    packed = Recurrence(lambda z: scan(z, *weights, batch_sizes=sizes), weights)
    return partial(packed.step, z, torch.randn(z.shape))
