"""The part of ``make bench`` that measures the scan alone, forward plus backward in float32.

How near it comes to what the machine can do (:mod:`experiments.bench.roofline`), what a second thread gains,
whether the time of a step depends on the length, and what sequences of different length cost.
Every measurement has a process of its own, whose allocator keeps freed memory
(:func:`experiments.process.use_caching_allocator`): so none pays for fresh pages.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.bench.measure import in_fresh_process, interleaved_times
from experiments.bench.rates import COPIED, rates_of, yardsticks
from experiments.bench.recurrences import METHODS, Recurrence, Shape, make_problem
from experiments.bench.roofline import Rates, floor
from experiments.process import threads as use_threads
from irevrnn.allocator import use_caching_allocator
from irevrnn.functional import scan

#: B, H and R where the time of a step is compared at several lengths.
FLAT = (4, 64, 3)
#: Numbers of z (T * B * H) that a timing of the scan alone spans at least: what is shorter is done
#: several times in a row, as an epoch does it.
SPAN = 8_000_000


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        floor: shapes where the distance from the floor is measured, beside those with peers: one
            sequence, a very long and narrow one, and many short and narrow ones.
        two_threads: shapes where two threads are compared with one.
        flat: T at which the time of a step is compared.
        packed: shapes of sequences of different length, T that of the longest.
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


#: What ``make bench`` measures.
PLAN = Plan()


def run(shapes: Iterable[Shape], plan: Plan, repetitions: int) -> dict[str, Any]:
    """Measure what a plan asks for.

    Args:
        shapes: those with peers; the floor of each with couplings is measured too.
        plan: the rest.
        repetitions: interleaved rounds.

    Returns:
        ``floor``, ``two_threads`` and ``packed``, a list of entries each, and ``flatness``, which
        is None where the plan has no lengths. ``two_threads`` is empty on a machine of one core.
    """
    floors = [*(shape for shape in shapes if shape.couplings), *plan.floor]
    print("measuring the scan alone ...", file=sys.stderr)
    pairs = [measure_threads(shape, repetitions) for shape in plan.two_threads]
    return {
        "floor": [measure_floor(shape, repetitions, plan.copied) for shape in floors],
        "two_threads": [entry for entry in pairs if entry is not None],
        "flatness": measure_flatness(plan.flat, repetitions) if plan.flat else None,
        "packed": [measure_packed(shape, repetitions) for shape in plan.packed],
    }


def _step(shape: Shape) -> Callable[[], object]:
    """Forward plus backward of the scan under ``recompute``."""
    problem = make_problem(shape)
    grad_out = torch.randn(problem.z.shape)
    return partial(METHODS["scan"].build(problem).step, problem.z, grad_out)


def _calls(shape: Shape) -> int:
    """How many calls a timing takes."""
    return math.ceil(SPAN / (shape.steps * shape.batch * shape.hidden))


def _repeat(method: Callable[[], object], times: int) -> None:
    for _ in range(times):
        method()


# --- the floor ----------------------------------------------------------------------------------


def measure_floor(shape: Shape, repetitions: int, copied: int) -> dict[str, Any]:
    """Compare the scan with its floor, on one thread.

    The rates that the floor takes are the highest of those measured in the same rounds as the scan.

    Args:
        shape: (T, B, H, R), R at least 1.
        repetitions: interleaved rounds.
        copied: numbers in the tensor whose copy gives the bytes a second.

    Returns:
        The shape, the times of the scan, ``rates`` (a second), ``tanh_ms``, ``multiply_adds_ms``,
        ``bytes_ms``, ``floor_ms`` and ``over_floor``, the scan's median over it.
    """
    return in_fresh_process(_measure_floor, shape, repetitions, copied)


def _measure_floor(shape: Shape, repetitions: int, copied: int) -> dict[str, Any]:
    use_caching_allocator()
    calls = _calls(shape)
    with use_threads(1):
        sticks = yardsticks(copied)
        methods = {name: stick.run for name, stick in sticks.items()}
        repeated = partial(_repeat, _step(shape), calls)
        times = interleaved_times({"scan": repeated, **methods}, repetitions)
    rates = rates_of(sticks, times)
    least = floor(shape, rates)
    of_scan = times["scan"].shared_by(calls).in_milliseconds()
    return {
        **shape._asdict(),
        **of_scan,
        "rates": rates._asdict(),
        **least._asdict(),
        "floor_ms": least.floor_ms,
        "over_floor": of_scan["median_ms"] / least.floor_ms,
    }


# --- threads ------------------------------------------------------------------------------------


def measure_threads(shape: Shape, repetitions: int) -> dict[str, Any] | None:
    """Compare two threads with one, also while another process keeps one of two cores busy.

    On a machine with more cores, the process and its neighbour are confined to two of them.

    Args:
        shape: (T, B, H, R).
        repetitions: interleaved rounds.

    Returns:
        The shape, times of ``one`` and ``two`` threads and of ``two_busy``, which has the busy
        neighbour, the ``speedup`` of two over one, and ``busy``, the time of two threads beside
        the neighbour over that of one alone, both with quartiles. None where this process may use
        one core alone, or where it cannot be told which.
    """
    if len(_cores()) < 2:
        return None
    return in_fresh_process(_measure_threads, shape, repetitions)


def _cores() -> list[int]:
    """Cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _measure_threads(shape: Shape, repetitions: int) -> dict[str, Any]:
    os.sched_setaffinity(0, _cores()[:2])  # threads and processes that are started later inherit it
    use_caching_allocator()
    step = _step(shape)

    def on(count: int) -> None:
        torch.set_num_threads(count)
        step()

    with _neighbour() as neighbour:

        def beside_it() -> None:
            with neighbour.busy():
                on(2)

        methods: dict[str, Callable[[], object]] = {
            "one": partial(on, 1),
            "two": partial(on, 2),
            "two_busy": beside_it,
        }
        times = interleaved_times(methods, repetitions)
    low, speedup, high = times["one"].ratio_to(times["two"])
    busy_low, busy_ratio, busy_high = times["two_busy"].ratio_to(times["one"])
    return {
        **shape._asdict(),
        "methods": {name: timing.in_milliseconds() for name, timing in times.items()},
        "speedup": speedup,
        "speedup_quartiles": [low, high],
        "busy": busy_ratio,
        "busy_quartiles": [busy_low, busy_high],
    }


#: Ends with the process that started it, however that ends.
_SPIN = "import os\nparent = os.getppid()\nprint(flush=True)\nwhile os.getppid() == parent: pass"


class Neighbour:
    """A process that keeps a core busy while it is told to, and sleeps otherwise."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Let it spin for the time of the context."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)


@contextmanager
def _neighbour() -> Iterator[Neighbour]:
    command = [sys.executable, "-c", _SPIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # it spins now
        process.send_signal(signal.SIGSTOP)
        try:
            yield Neighbour(process)
        finally:
            process.kill()


# --- one length and another ---------------------------------------------------------------------


def measure_flatness(lengths: Sequence[int], repetitions: int) -> dict[str, Any]:
    """Compare the time of a step at several lengths, with B, H and R of :data:`FLAT`.

    Every length takes its turn in each round, with so many calls that all take as many steps. What
    a call costs whatever the length is part of it.

    Args:
        lengths: T of each.
        repetitions: interleaved rounds.

    Returns:
        B, H and R, ``lengths`` with ``steps`` and quartiles in nanoseconds per step and unit, and
        ``highest_to_lowest``, the ratio of the medians.
    """
    return in_fresh_process(_measure_flatness, tuple(lengths), repetitions)


def _measure_flatness(lengths: Sequence[int], repetitions: int) -> dict[str, Any]:
    use_caching_allocator()
    calls = {steps: math.ceil(max(lengths) / steps) for steps in lengths}
    methods = {
        str(steps): partial(_repeat, _step(Shape(steps, *FLAT)), calls[steps]) for steps in lengths
    }
    with use_threads(1):
        times = interleaved_times(methods, repetitions)
    rows = []
    for steps in lengths:
        numbers = calls[steps] * steps * FLAT[0] * FLAT[1]
        low, median, high = (1e9 * x / numbers for x in times[str(steps)].quartiles)
        rows.append({"steps": steps, "median_ns": median, "low_ns": low, "high_ns": high})
    medians = [row["median_ns"] for row in rows]
    return {
        **dict(zip(Shape._fields[1:], FLAT, strict=True)),
        "lengths": rows,
        "highest_to_lowest": max(medians) / min(medians),
    }


# --- sequences of different length --------------------------------------------------------------


def measure_packed(shape: Shape, repetitions: int) -> dict[str, Any]:
    """Compare packed sequences of uniformly random length with dense ones, on one thread.

    Args:
        shape: (T, B, H, R): B sequences of 1 to T steps.
        repetitions: interleaved rounds.

    Returns:
        The shape, ``valid_steps`` of all sequences, the times of ``packed``, of ``same_steps``
        (dense sequences of equal length, with as many valid steps, up to rounding) and of
        ``padded`` (the same sequences, each with T steps), and ``ratios`` of ``packed`` to both.
    """
    return in_fresh_process(_measure_packed, shape, repetitions)


def _measure_packed(shape: Shape, repetitions: int) -> dict[str, Any]:
    use_caching_allocator()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, shape.steps + 1, (shape.batch,), generator=generator)
    sizes = (lengths > torch.arange(int(lengths.max()))[:, None]).sum(1)
    valid = int(lengths.sum())
    methods = {
        "packed": _packed_step(shape, sizes),
        "same_steps": _step(shape._replace(steps=round(valid / shape.batch))),
        "padded": _step(shape),
    }
    with use_threads(1):
        times = interleaved_times(methods, repetitions)
    ratios = {name: times["packed"].ratio_to(times[name]) for name in ("same_steps", "padded")}
    return {
        **shape._asdict(),
        "valid_steps": valid,
        "methods": {name: timing.in_milliseconds() for name, timing in times.items()},
        "ratios": {name: ratio for name, (_, ratio, _) in ratios.items()},
        "ratio_quartiles": {name: [low, high] for name, (low, _, high) in ratios.items()},
    }


def _packed_step(shape: Shape, sizes: Tensor) -> Callable[[], object]:
    problem = make_problem(shape)
    weights = problem[1:]
    z = problem.z.detach().flatten(0, 1)[: int(sizes.sum())].clone().requires_grad_()
    packed = Recurrence(lambda z: scan(z, *weights, batch_sizes=sizes), weights)
    return partial(packed.step, z, torch.randn(z.shape))


# --- tables -------------------------------------------------------------------------------------

#: A title and rows of cells.
Table = tuple[str, list[tuple[str, ...]]]


def tables(report: dict[str, Any]) -> list[Table]:
    """The tables of what :func:`run` returned."""
    found = [_floor_table(report["floor"])] if report["floor"] else []
    found += [_threads_table(entry) for entry in report["two_threads"]]
    if report["flatness"]:
        found.append(_flat_table(report["flatness"]))
    return found + [_packed_table(entry) for entry in report["packed"]]


def _floor_table(entries: Sequence[dict[str, Any]]) -> Table:
    rows: list[tuple[str, ...]] = [
        ("T, B, H, R", "scan ms", "quartiles", "floor ms", "tanh", "multiply-adds", "bytes",
         "x floor")
    ]  # fmt: skip
    for entry in entries:
        parts = ("floor_ms", "tanh_ms", "multiply_adds_ms", "bytes_ms")
        rows.append(
            (
                ", ".join(str(entry[field]) for field in Shape._fields),
                *_cells(entry),
                *(f"{entry[part]:.2f}" for part in parts),
                f"{entry['over_floor']:.2f}",
            )
        )
    tanh, multiply_adds, moved = (entries[0]["rates"][name] / 1e9 for name in Rates._fields)
    title = (
        "The scan over its floor, the larger of (tanh + multiply-adds) and bytes, ms, one thread\n"
        f"(highest rates measured, at the first shape: {tanh:.2f} tanh, {multiply_adds:.1f} "
        f"multiply-adds and {moved:.1f} bytes a nanosecond)"
    )
    return title, rows


def _threads_table(entry: dict[str, Any]) -> Table:
    labels = {
        "one": "one thread",
        "two": "two threads",
        "two_busy": "two threads, a neighbour busy on one of two cores",
    }
    rows: list[tuple[str, ...]] = [("", "median ms", "quartiles", "")]
    notes = {
        "one": "",
        "two": f"{entry['speedup']:.2f} times faster than one",
        "two_busy": f"{entry['busy']:.2f} times the time of one alone",
    }
    rows += [
        (labels[name], *_cells(times), notes[name]) for name, times in entry["methods"].items()
    ]
    return f"Threads, {_sizes(entry)}", rows


def _flat_table(entry: dict[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = [("T", "ns a step and unit", "quartiles")]
    for row in entry["lengths"]:
        spread = f"{row['low_ns']:.2f}-{row['high_ns']:.2f}"
        rows.append((f"{row['steps']:,}", f"{row['median_ns']:.2f}", spread))
    title = (
        f"Long and short sequences, B = {entry['batch']}, H = {entry['hidden']}, "
        f"R = {entry['couplings']}: highest over lowest {entry['highest_to_lowest']:.2f}"
    )
    return title, rows


def _packed_table(entry: dict[str, Any]) -> Table:
    labels = {
        "packed": "packed",
        "same_steps": "as many steps, of equal length",
        "padded": "padded to the longest",
    }
    rows: list[tuple[str, ...]] = [("", "median ms", "quartiles", "packed over it")]
    for name, times in entry["methods"].items():
        rows.append((labels[name], *_cells(times), f"{entry['ratios'].get(name, 1):.2f}"))
    return f"Sequences of 1 to T steps, {_sizes(entry)}", rows


def _cells(times: dict[str, Any]) -> tuple[str, str]:
    return f"{times['median_ms']:.2f}", f"{times['low_ms']:.2f}-{times['high_ms']:.2f}"


def _sizes(entry: dict[str, Any]) -> str:
    names = zip("TBHR", Shape._fields, strict=True)
    return ", ".join(f"{symbol} = {entry[field]}" for symbol, field in names)
