"""The scan alone, forward plus backward in float32.

How near it comes to what the machine can do (:mod:`experiments.bench.roofline`), the speedup of a
second thread, the time of a step at several lengths, and the cost of packed sequences. Every
measurement belongs in a process of its own with the caching allocator, so that none pays for new
pages: :func:`experiments.bench.suite.run` sees to that.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench.measure import interleaved_times, quartiles, summary, wall_clock
from experiments.bench.recurrences import Shape, Timed, make_problem
from experiments.bench.roofline import floor, rates_of, yardsticks
from irevrnn.modules.functional import scan

#: B, H and R where the time of a step is compared at several lengths.
FLAT = (4, 64, 3)
#: Numbers of z (T * B * H) that a timing spans at least: shorter sequences are repeated.
SPAN = 8_000_000


def _steps(shape: Shape, calls: int = 1, sizes: Tensor | None = None) -> Callable[[], object]:
    """Return a function that runs the scan forward and backward ``calls`` times.

    With ``sizes``, the sequences are packed: those are the sequences at each step.
    """
    problem = make_problem(shape)
    z, weights = problem.z, problem[1:]
    if sizes is not None:
        z = z.detach().flatten(0, 1)[: int(sizes.sum())].clone().requires_grad_()
    recurrence = Timed(lambda z: scan(z, *weights, batch_sizes=sizes), weights)
    grad_out = torch.randn(z.shape)

    def run() -> None:
        for _ in range(calls):
            recurrence.step(z, grad_out)

    return run


def measure_floor(shape: Shape, repetitions: int, copied: int) -> dict[str, Any]:
    """Compare the scan with its floor, in a process of one thread.

    The rates are the highest of those measured in the same rounds. Returns the shape, the times of
    the scan, ``rates`` (a second), the entries of :func:`~experiments.bench.roofline.floor`, and
    ``over_floor``, the scan's median over it.
    """
    calls = math.ceil(SPAN / (shape.steps * shape.batch * shape.hidden))
    methods, amounts = yardsticks(copied)
    times = interleaved_times({"scan": _steps(shape, calls), **methods}, repetitions)
    rates, of_scan = rates_of(amounts, times), quartiles(times["scan"] / calls)
    least = floor(shape, rates)
    over = of_scan["median_ms"] / least["floor_ms"]
    rest = {"rates": rates._asdict(), **least, "over_floor": over}
    return {**shape._asdict(), **of_scan, **rest}


def cores() -> list[int]:
    """Return the cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def measure_threads(shape: Shape, repetitions: int) -> dict[str, Any]:
    """Compare two threads with one, also while another process keeps one of two cores busy.

    Confines this process to two cores, for good. Returns the shape, times of ``one`` and ``two``
    threads and of ``two_busy``, and two ratios with quartiles: ``speedup``, of one thread to two,
    and ``busy``, of two beside the busy process to one alone.
    """
    os.sched_setaffinity(0, cores()[:2])  # threads and processes that start later inherit it
    step = _steps(shape)

    def on(count: int) -> None:
        torch.set_num_threads(count)
        step()

    one, two, two_busy = partial(on, 1), partial(on, 2), partial(on, 2)

    def clock(method: Callable[[], object]) -> float:
        with busy_process() if method is two_busy else nullcontext():
            return wall_clock(method)

    methods = {"one": one, "two": two, "two_busy": two_busy}
    times = interleaved_times(methods, repetitions, clock=clock)
    report = summary(times, {"speedup": ("one", "two"), "busy": ("two_busy", "one")})
    ends = {f"{name}_quartiles": x for name, x in report["ratio_quartiles"].items()}
    return {**shape._asdict(), "methods": report["methods"], **report["ratios"], **ends}


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
    steps = {x: _steps(Shape(x, *FLAT), count) for x, count in calls.items()}
    rows = []
    for x, seconds in interleaved_times(steps, repetitions).items():
        numbers = calls[x] * x * FLAT[0] * FLAT[1]
        rows.append({"steps": x, **quartiles(seconds / numbers, "ns", 1e9)})
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
        "packed": _steps(shape, sizes=sizes),
        "same_steps": _steps(shape._replace(steps=round(valid / shape.batch))),
        "padded": _steps(shape),
    }
    pairs = {name: ("packed", name) for name in ("same_steps", "padded")}
    report = summary(interleaved_times(methods, repetitions), pairs)
    return {**shape._asdict(), "valid_steps": valid, **report}
