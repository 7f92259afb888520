"""The scan and the layer on a GPU, against cuDNN and against the memory's bandwidth.

The cell computes little and moves much. So the yardstick of a kernel is the bytes that it has to
move (:mod:`experiments.bench.roofline`) over the bandwidth of copying a tensor on the same card.
The peers are ``nn.LSTM`` and ``nn.GRU`` (cuDNN), and ``scan`` with ``memory="store"``, which saves
every intermediate of every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.bench.measure import Clock, interleaved_times, quartiles
from experiments.bench.recurrences import METHODS, Shape, make_problem
from experiments.bench.roofline import backward_bytes, forward_bytes

SHAPES = (Shape(784, 128, 512, 1), Shape(784, 128, 512, 3), Shape(784, 32, 128, 3))
PEERS = ("scan", "scan_store", "layer", "lstm", "gru")
#: The strategy of those that are nothing but the scan: their bytes are known.
SCANS = {"scan": "recompute", "scan_store": "store"}
#: Numbers in the tensor that is copied: 1 GiB, far more than any cache holds.
COPIED = 1 << 28


def run(repetitions: int) -> dict[str, Any] | None:
    """Measure on the current GPU; return None where PyTorch finds none."""
    if not torch.cuda.is_available():
        return None
    return measure("cuda", SHAPES, repetitions, event_clock, COPIED)


def event_clock(method: Callable[[], object]) -> float:
    """Return the seconds between two events on the current stream, around a method's work.

    The events wait in the stream as the kernels do: the time of launching them counts only where
    the GPU would have to wait for it.
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
    """Measure the bandwidth of copying a tensor on a device, and the methods at every shape.

    Returns the report, ready for JSON: bandwidth in bytes a second, read and written, times in
    milliseconds.
    """
    source = torch.zeros(copied, device=device)
    target = torch.empty_like(source)
    times = interleaved_times({"copy": lambda: target.copy_(source)}, repetitions, clock=clock)
    bandwidth = 2 * source.nbytes / float(np.median(times["copy"]))
    entries = []
    for shape in shapes:
        problem = make_problem(shape, device=device)
        z, grad_out = problem.z, torch.randn(problem.z.shape).to(device)
        built = {name: METHODS[name].build(problem) for name in PEERS}
        steps: dict[tuple[str, str], Callable[[], object]] = {}
        for name, method in built.items():
            steps[name, "forward"] = partial(method.forward, z)
            steps[name, "both"] = partial(method.step, z, grad_out)
        methods: dict[str, dict[str, Any]] = {
            name: {"saved_bytes": method.count_saved(z)} for name, method in built.items()
        }
        for (name, part), seconds in interleaved_times(steps, repetitions, clock=clock).items():
            entry: dict[str, Any] = methods[name].setdefault(part, quartiles(seconds))
            if name in SCANS:
                moved = forward_bytes(shape, SCANS[name])
                moved += backward_bytes(shape, SCANS[name]) if part == "both" else 0
                share = moved / bandwidth / float(np.median(seconds))
                entry |= {"moved_bytes": moved, "share_of_bandwidth": share}
        entries.append({**shape._asdict(), "methods": methods})
    return {
        "copy_bytes_per_second": bandwidth,
        "copied_bytes": source.nbytes,
        "shapes": entries,
    }
