"""The peak memory of a training step, as the operating system sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from experiments.bench.measure import peak_memory
from experiments.train.config import TrainConfig
from experiments.train.run import Run
from irevrnn.allocator import use_caching_allocator

#: Steps of the sequences that load the kernels.
WARM_UP = 100


def peak_bytes(config: TrainConfig) -> int:
    """Return the bytes that a step of the last epoch adds to a new process.

    They are counted beyond the batch, the network and the optimizer's state, with one thread and
    the caching allocator.
    """
    return peak_memory(_last_step, replace(config, threads=1, resume=False))


def _last_step(config: TrainConfig) -> Callable[[], None]:
    torch.set_num_threads(1)
    use_caching_allocator()
    run = Run(config)
    x, y = next(run.task.train_batches(config.epochs - 1, 0))
    assert isinstance(x, torch.Tensor)  # sequences of one length
    run.step(x[:, :WARM_UP], y)
    return lambda: run.step(x, y)
