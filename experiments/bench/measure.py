"""Count saved bytes, measure peak memory, and time methods against each other."""

from __future__ import annotations

import gc
import multiprocessing
import random
import re
import resource
import sys
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.allocator import empty_cache, use_caching_allocator

#: A method whose last warm-up took longer than this is repeated less often.
SLOW_SECONDS = 5.0
SLOW_REPETITIONS = 5

#: On Linux, new processes are forked from one that has only imported this module, as importing
#: PyTorch anew takes seconds; on macOS, its libraries may not survive a fork.
_PROCESSES = multiprocessing.get_context(
    "forkserver" if sys.platform.startswith("linux") else "spawn"
)
_PROCESSES.set_forkserver_preload([__name__])

Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)
#: Runs a method to its end and returns the seconds it took.
Clock = Callable[[Callable[[], object]], float]


def saved_bytes(
    forward: Callable[[], Any], exclude: Iterable[Tensor] = (), *, exclude_output: bool = False
) -> int:
    """Count the bytes that the graph of ``forward()`` keeps for its backward pass.

    Autograd's saved tensors are counted by distinct storage, on every device alike: two views of
    one storage count once, and a view of a small part counts its whole storage, which stays
    allocated. Tensors released before ``forward`` returns do not count. A tensor that an autograd
    function hides on its ``ctx``, past ``save_for_backward``, escapes the count.

    The storages of ``exclude`` do not count, such as inputs and parameters, which stay allocated
    without the graph too. With ``exclude_output``, nor do those of the tensors that ``forward``
    returns, in tuples, lists or dicts.
    """
    saved: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        # Detached: a result that its own node saves would otherwise keep that node alive for ever.
        kept = tensor.detach()
        saved.append(weakref.ref(kept))
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept):
        output = forward()
    returned = [x for x in tree_leaves(output) if exclude_output and isinstance(x, Tensor)]
    left_out = _storages([*exclude, *returned])
    storages = _storages(x for kept in saved if (x := kept()) is not None)
    return sum(size for key, size in storages.items() if key not in left_out)


def _storages(tensors: Iterable[Tensor]) -> dict[tuple[torch.device, int], int]:
    """Return the bytes of each distinct storage, by device and address."""
    found = ((x.device, x.untyped_storage()) for x in tensors)
    return {(device, storage.data_ptr()): storage.nbytes() for device, storage in found}


def in_fresh_process(
    function: Callable[..., Result],
    *args: Any,
    threads: int | None = None,
    caching_allocator: bool = False,
) -> Result:
    """Call a function in a new process, whose allocator earlier work has not touched.

    The function is importable from a module. The process has ``threads`` threads, or as many as
    this one, and the caching allocator if asked to. On Linux, its environment variables are those
    at the first call. An exception is raised here.
    """
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=_PROCESSES,
        initializer=_set_up,
        initargs=(threads or torch.get_num_threads(), caching_allocator),
    ) as pool:
        return pool.submit(function, *args).result()


def _set_up(threads: int, caching_allocator: bool) -> None:
    torch.set_num_threads(threads)
    if caching_allocator:
        use_caching_allocator()


def peak_memory(prepare: Callable[..., Callable[[], object]], *args: Any, **process: Any) -> int:
    """Return the bytes by which a computation raises the peak resident memory of a new process.

    There, ``prepare(*args)``, importable from a module, builds the inputs, warms up, and returns
    the computation. ``process`` are options of :func:`in_fresh_process`.
    """
    return in_fresh_process(growth_of_peak, prepare, *args, **process)


def growth_of_peak(prepare: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Do the same as :func:`peak_memory` in this process, a new one."""
    compute = prepare(*args)
    gc.collect()
    empty_cache()  # memory of earlier work that is used again would not show as growth
    with suppress(OSError):  # set Linux's high-water mark to what is resident now
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident()
    compute()
    return _peak_resident() - before


def _peak_resident() -> int:
    """Return the high-water mark of resident memory, in bytes.

    Linux: VmHWM, as ``ru_maxrss`` of a new process starts at the peak of the one that started it.
    """
    if sys.platform.startswith("linux"):
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        assert match
        return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def quartiles(seconds: np.ndarray, unit: str = "ms", per_second: float = 1e3) -> dict[str, float]:
    """Return quartiles for reports: ``median_ms``, ``low_ms`` and ``high_ms``, or another unit."""
    low, median, high = np.quantile(per_second * seconds, [0.25, 0.5, 0.75]).tolist()
    return {f"median_{unit}": median, f"low_{unit}": low, f"high_{unit}": high}


def summary(
    times: Mapping[str, np.ndarray], pairs: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Summarise the times of methods for a report.

    Returns ``methods`` with the quartiles of each; for the two names of each pair, ``ratios`` of
    the medians and ``ratio_quartiles``, the outer ones of the ratios in each round.
    """
    report: dict[str, dict[str, Any]] = {
        "methods": {name: quartiles(seconds) for name, seconds in times.items()},
        "ratios": {},
        "ratio_quartiles": {},
    }
    for name, (one, other) in pairs.items():
        mine, its = times[one], times[other]
        rounds = min(len(mine), len(its))  # a slow method has fewer
        ends = np.quantile(mine[:rounds] / its[:rounds], [0.25, 0.75])
        report["ratios"][name] = float(np.median(mine) / np.median(its))
        report["ratio_quartiles"][name] = ends.tolist()
    return report


def wall_clock(method: Callable[[], object]) -> float:
    """Return the seconds that a synchronous method takes."""
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def interleaved_times(
    methods: Mapping[Key, Callable[[], object]],
    repetitions: int,
    warmup: int = 2,
    clock: Clock = wall_clock,
) -> dict[Key, np.ndarray]:
    """Time methods against each other: every round runs each of them once, in random order.

    Returns the seconds of each method in the order of the rounds.

    Whatever slows the machine down for a while then slows all of them. A method that takes longer
    than :data:`SLOW_SECONDS` takes part in the first :data:`SLOW_REPETITIONS` rounds alone. Before
    the first round, each has ``warmup`` untimed runs, at least 1. Python collects its garbage
    between rounds only: no method pays for the objects of another.
    """
    rounds = {}
    for name, method in methods.items():
        last = [clock(method) for _ in range(warmup)][-1]
        rounds[name] = repetitions if last < SLOW_SECONDS else min(repetitions, SLOW_REPETITIONS)
    seconds: dict[Key, list[float]] = {name: [] for name in methods}
    order = random.Random(0)
    for index in range(repetitions):
        names = [name for name in methods if index < rounds[name]]
        gc.collect()
        gc.disable()
        try:
            for name in order.sample(names, len(names)):
                seconds[name].append(clock(methods[name]))
        finally:
            gc.enable()
    return {name: np.array(values) for name, values in seconds.items()}
