"""The peak memory of a training step, as the operating system sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from experiments.bench.measure import peak_memory
from experiments.tasks.synthetic import SyntheticConfig
from experiments.train.run import Run
from experiments.train.task import Batch

#: Steps of the sequences that load the kernels.
WARM_UP = 100


def peak_bytes(config: SyntheticConfig) -> int:
    """Return the bytes that a step of the last epoch adds to a new process.

    They are counted beyond the batch, the network and the optimizer's state, with one thread and
    the caching allocator.
    """
    return peak_memory(_last_step, config, threads=1, caching_allocator=True)


def _last_step(config: SyntheticConfig) -> Callable[[], None]:
    short, run = (Run(replace(config, length=length)) for length in (WARM_UP, config.length))
    short.step(*_last_batch(short))
    batch = _last_batch(run)
    return lambda: run.step(*batch)


def _last_batch(run: Run) -> Batch:
    return next(run.task.train_batches(run.config.epochs - 1, 0))
