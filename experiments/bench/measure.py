"""Bytes saved for the backward pass, peak memory of the process, and time: one way to count each."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import re
import resource
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from experiments.provenance import provenance
from irevrnn.allocator import empty_cache

#: A method whose last warm-up took so many seconds is repeated less often.
SLOW_SECONDS = 5.0
SLOW_REPETITIONS = 5

Result = TypeVar("Result")
#: Runs a method to its end and returns the seconds it took.
Clock = Callable[[Callable[[], object]], float]


def environment() -> dict[str, Any]:
    """Describe what a measurement depends on: code, versions, processor and its number of cores."""
    return {**provenance(), "cores": os.cpu_count()}


# --- bytes saved between forward and backward ----------------------------------------------------


class _Saved:
    """What autograd keeps in place of a tensor: an object that can be watched for its death."""

    def __init__(self, tensor: Tensor) -> None:
        # Detached: a result that its own node saves would otherwise keep that node alive for ever.
        self.tensor = tensor.detach()


def saved_bytes(
    forward: Callable[[], Any], exclude: Iterable[Tensor] = (), *, exclude_output: bool = False
) -> int:
    """Count the bytes that the graph of ``forward()`` holds until its backward pass.

    Autograd's saved tensors are counted by distinct storage, for every method and device alike: two
    views of one storage count once, and a view of a small part counts its whole storage, as that is
    what stays allocated. What a method lets go before ``forward`` returns does not count. A tensor
    that an autograd function hides on its ``ctx``, past ``save_for_backward``, escapes the count.

    Args:
        forward: runs the forward pass and returns what it computed: tensors, in tuples, lists or
            dicts.
        exclude: tensors whose storage does not count, such as inputs and parameters: they stay
            allocated without the graph too.
        exclude_output: whether to leave out the storage of what ``forward`` returns as well.

    Returns:
        Bytes.
    """
    saved: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        kept = _Saved(tensor)
        saved.add(kept)
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept.tensor):
        output = forward()
    saved = _storages(kept.tensor for kept in saved)
    left_out = _storages([*exclude, *(_tensors(output) if exclude_output else ())])
    return sum(size for key, size in saved.items() if key not in left_out)


def _storages(tensors: Iterable[Tensor]) -> dict[tuple[torch.device, int], int]:
    """Bytes of each distinct storage, by device and address."""
    found = ((x.device, x.untyped_storage()) for x in tensors)
    return {(device, storage.data_ptr()): storage.nbytes() for device, storage in found}


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))


# --- a process of its own -----------------------------------------------------------------------


def in_fresh_process(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function in a fresh process, with the caller's number of threads.

    What earlier work has left behind, in the allocator above all, cannot change its result there.

    Args:
        function: importable from a module.
        args: its arguments, which can be pickled, as what it returns can.

    Returns:
        What it returns; what it raises is raised.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as pool:
        return pool.submit(_with_threads, torch.get_num_threads(), function, args).result()


def _with_threads(count: int, function: Callable[..., Result], args: tuple[Any, ...]) -> Result:
    torch.set_num_threads(count)
    return function(*args)


# --- peak memory of the process -----------------------------------------------------------------


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Measure by how much a computation raises the peak resident memory of a fresh process.

    Args:
        prepare: builds the inputs, warms up, and returns the computation to measure; importable
            from a module.
        args: arguments of ``prepare``, which can be pickled.

    Returns:
        Bytes, as the operating system sees them, above what was resident before the computation.
    """
    return in_fresh_process(_peak_memory, prepare, *args)


def _peak_memory(prepare: Callable[..., Callable[[], object]], *args: Any) -> int:
    return growth_of_peak(prepare(*args))


def growth_of_peak(compute: Callable[[], object]) -> int:
    """Bytes by which a computation raises the peak of this process, which should be a fresh one."""
    gc.collect()
    empty_cache()  # reusing what preparing has freed would not show as growth
    _reset_peak()
    before = _peak_resident()
    compute()
    return _peak_resident() - before


def _reset_peak() -> None:
    """Set Linux's high-water mark to what is resident now; elsewhere it starts with the process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident() -> int:
    """Return the high-water mark of resident memory, in bytes.

    Linux: VmHWM, as ``ru_maxrss`` of a fresh process starts at the peak of the one that started it.
    """
    if sys.platform.startswith("linux"):
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        assert match
        return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


# --- time ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of each repetition, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile, in seconds."""
        return _quartiles(self.seconds)

    def shared_by(self, calls: int) -> Timing:
        """The time of one call, where each repetition took so many."""
        return Timing(tuple(seconds / calls for seconds in self.seconds))

    def in_milliseconds(self) -> dict[str, float]:
        """The quartiles as ``low_ms``, ``median_ms`` and ``high_ms``, as reports have them."""
        low, median, high = (1e3 * seconds for seconds in self.quartiles)
        return {"median_ms": median, "low_ms": low, "high_ms": high}

    def ratio_to(self, other: Timing) -> tuple[float, float, float]:
        """Ratio of the medians, between the quartiles of the ratios within each round."""
        pairs = zip(self.seconds, other.seconds, strict=False)  # a slow method has fewer rounds
        low, _, high = _quartiles([mine / its for mine, its in pairs])
        return low, self.quartiles[1] / other.quartiles[1], high


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, median, high


def wall_clock(method: Callable[[], object]) -> float:
    """Seconds that a method takes which returns when it is done."""
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def interleaved_times(
    methods: Mapping[str, Callable[[], object]],
    repetitions: int = 9,
    warmup: int = 2,
    clock: Clock = wall_clock,
) -> dict[str, Timing]:
    """Time methods against each other: every round runs each of them once, in random order.

    What slows the machine down for a while then slows all of them, and none always follows the same
    other one. A method that takes longer than :data:`SLOW_SECONDS` takes part in the first
    :data:`SLOW_REPETITIONS` rounds alone. Python collects its garbage between rounds only, as in
    ``timeit``: a method must not pay for objects that another has left behind.

    Args:
        methods: what to time, by name.
        repetitions: rounds.
        warmup: untimed runs of each method before the first round, at least 1.
        clock: runs a method to its end and returns the seconds it took.

    Returns:
        A timing for each name.
    """
    rounds = {name: _rounds(method, repetitions, warmup, clock) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    order = random.Random(0)
    for index in range(repetitions):
        names = [name for name in methods if index < rounds[name]]
        with _no_garbage_collection():
            for name in order.sample(names, len(names)):
                seconds[name].append(clock(methods[name]))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rounds(
    method: Callable[[], object],
    repetitions: int,
    warmup: int,
    clock: Clock,
) -> int:
    last = [clock(method) for _ in range(warmup)][-1]
    return repetitions if last < SLOW_SECONDS else min(repetitions, SLOW_REPETITIONS)
