"""The part of ``make bench`` that runs on a GPU: against cuDNN and against the memory's speed.

What the cell computes is little beside what it moves. So the yardstick of a kernel is the bytes
that it has to move (:mod:`experiments.bench.traffic`) over the bandwidth that copying a tensor reaches on the
same card. The peers are ``nn.LSTM`` and ``nn.GRU`` (cuDNN), and ``scan`` with ``memory="store"``,
which keeps every intermediate of every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch

from experiments.bench.measure import Clock, Timing, interleaved_times, saved_bytes
from experiments.bench.recurrences import METHODS, Problem, Recurrence, Shape, make_problem
from experiments.bench.traffic import backward_bytes, forward_bytes

SHAPES = (Shape(784, 128, 512, 1), Shape(784, 128, 512, 3), Shape(784, 32, 128, 3))
PEERS = ("scan", "scan_store", "layer", "lstm", "gru")
#: The strategy of those that are nothing but the scan: their bytes are known.
SCANS = {"scan": "recompute", "scan_store": "store"}
#: Numbers in the tensor that is copied: 1 GiB, far more than any cache holds.
COPIED = 1 << 28


def run(repetitions: int) -> dict[str, Any] | None:
    """Measure on the current GPU; None where PyTorch finds none."""
    if not torch.cuda.is_available():
        return None
    return measure("cuda", SHAPES, repetitions, event_clock, COPIED)


def event_clock(method: Callable[[], object]) -> float:
    """Seconds between two events on the current stream, one before and one after a method's work.

    The events wait in the stream as the kernels do: what Python takes to launch them counts only
    where the GPU would have to wait for it.
    """
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    method()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1e3


def measure(
    device: str, shapes: Iterable[Shape], repetitions: int, clock: Clock, copied: int
) -> dict[str, Any]:
    """Measure the copy bandwidth of a device, and the methods at every shape.

    Args:
        device: PyTorch's name of it.
        shapes: (T, B, H, R) each.
        repetitions: interleaved rounds.
        clock: what times a method on this device.
        copied: numbers in the tensor that is copied.

    Returns:
        The report, ready for JSON: bandwidth in bytes a second, times in milliseconds.
    """
    bandwidth = copy_bandwidth(device, repetitions, clock, copied)
    return {
        "copy_bytes_per_second": bandwidth,
        "copied_bytes": 4 * copied,
        "shapes": [_measure(shape, device, repetitions, clock, bandwidth) for shape in shapes],
    }


def copy_bandwidth(device: str, repetitions: int, clock: Clock, numbers: int) -> float:
    """Bytes read and written in a second when a float32 tensor is copied to another."""
    source = torch.zeros(numbers, device=device)
    target = torch.empty_like(source)
    times = interleaved_times({"copy": lambda: target.copy_(source)}, repetitions, clock=clock)
    return 2 * source.nbytes / times["copy"].quartiles[1]


def _measure(
    shape: Shape, device: str, repetitions: int, clock: Clock, bandwidth: float
) -> dict[str, Any]:
    problem = make_problem(shape, device=device)
    grad_out = torch.randn(problem.z.shape).to(device)
    built = {name: METHODS[name].build(problem) for name in PEERS}
    steps: dict[str, Callable[[], object]] = {}
    for name, method in built.items():
        steps[f"{name} forward"] = partial(method.forward, problem.z)
        steps[f"{name} both"] = partial(method.step, problem.z, grad_out)
    times = interleaved_times(steps, repetitions, clock=clock)
    return {
        **shape._asdict(),
        "methods": {
            name: {
                "saved_bytes": _saved(method, problem),
                **{
                    part: _entry(name, part, shape, times[f"{name} {part}"], bandwidth)
                    for part in ("forward", "both")
                },
            }
            for name, method in built.items()
        },
    }


def _saved(method: Recurrence, problem: Problem) -> int:
    return saved_bytes(
        lambda: method.forward(problem.z),
        exclude=(*problem, *method.weights),
        exclude_output=True,
    )


def _entry(name: str, part: str, shape: Shape, timing: Timing, bandwidth: float) -> dict[str, Any]:
    entry = timing.in_milliseconds()
    if name not in SCANS:
        return entry
    moved = forward_bytes(*shape, torch.float32, SCANS[name])
    if part == "both":
        moved += backward_bytes(*shape, torch.float32, SCANS[name])
    return {
        **entry,
        "moved_bytes": moved,
        "share_of_bandwidth": moved / bandwidth / timing.quartiles[1],
    }


# --- table --------------------------------------------------------------------------------------

HEAD = ("", "forward ms", "of bandwidth", "both ms", "of bandwidth", "x scan", "saved MB")


def rows(entry: dict[str, Any]) -> Sequence[Sequence[str]]:
    """The table of one shape, as text."""
    scan = entry["methods"]["scan"]["both"]["median_ms"]
    return [HEAD, *(_row(name, method, scan) for name, method in entry["methods"].items())]


def _row(name: str, method: dict[str, Any], scan: float) -> tuple[str, ...]:
    parts = [method[part] for part in ("forward", "both")]
    times = [(f"{part['median_ms']:.2f}", _share(part)) for part in parts]
    return (
        METHODS[name].label,
        *times[0],
        *times[1],
        f"{parts[1]['median_ms'] / scan:.2f}",
        f"{method['saved_bytes'] / 1e6:.2f}",
    )


def _share(part: dict[str, Any]) -> str:
    return f"{part['share_of_bandwidth']:.0%}" if "share_of_bandwidth" in part else ""
