"""Training with several workers that ``torchrun`` started: who does what, and how it ends.

Each worker holds the whole network and takes an equal share of every batch. Gradients, batch
statistics and figures are those of the whole batch, so that a run is that of one process up to
rounding (and but for dropout, which each worker draws for its share). All of it does nothing in a
process that works alone.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

#: How long a worker waits for the others before it ends with an error. The kernels are built, and
#: the data fetched, by one worker while the others wait.
PATIENCE = timedelta(minutes=10)


def launched() -> bool:
    """Whether torchrun started this process, with others beside it."""
    return dist.is_available() and dist.is_torchelastic_launched() and _count("WORLD_SIZE") > 1


def workers_here() -> int:
    """How many workers torchrun started on this machine."""
    return _count("LOCAL_WORLD_SIZE")


def placement() -> dict[str, Any]:
    """Fabric's arguments that place the workers torchrun started."""
    return {
        "devices": workers_here(),
        "num_nodes": _count("WORLD_SIZE") // workers_here(),
        "strategy": DDPStrategy(timeout=PATIENCE),
    }


def _count(name: str) -> int:
    return int(os.environ[name])


@contextmanager
def leaving_in_order() -> Iterator[None]:
    """Close the process group that the block opened, after all that was wrapped for it is gone.

    A DistributedDataParallel wrapper that goes after its gloo group, or takes it along, deadlocks
    now and then in the group's destructor, with any model (pytorch/pytorch#56297). So the block
    must not hand out the wrapper; what an exception still holds in its frames is let go here.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if dist.is_available() and dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()


def share_of(batch: Tensor, rank: int, workers: int) -> Tensor:
    """The part of a batch (its first dimension) that a worker takes.

    Raises:
        ValueError: it cannot be divided equally; the mean over workers would be another mean.
    """
    if len(batch) % workers:
        raise ValueError(f"a batch of {len(batch)} cannot be shared equally by {workers} workers")
    return batch[rank::workers]


def gathered(own: Any, workers: int) -> list[Any]:
    """What every worker has, in the order of their ranks."""
    if workers == 1:
        return [own]
    everyones: list[Any] = [None] * workers
    dist.all_gather_object(everyones, own)
    return everyones


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the shares of all workers: (N, C), with N the same everywhere.

    PyTorch's SyncBatchNorm is for GPUs alone; this one runs wherever the process group does.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        workers = dist.get_world_size()
        x = input.to(self.weight.dtype)  # under autocast it may be half precision
        mean = _SumOverWorkers.apply(x.mean(0)) / workers
        centred = x - mean
        variance = _SumOverWorkers.apply(centred.square().mean(0)) / workers
        self._track(mean.detach(), variance.detach(), len(x) * workers)
        output = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        return output.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def share_statistics(network: nn.Module) -> None:
    """Let every BatchNorm1d of ``network`` normalise over all workers, with what it has learnt."""
    for module in network.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = SharedBatchNorm  # the same parameters, buffers and names


def summed(own: Tensor, workers: int) -> Tensor:
    """The sum of a tensor over all workers, the same bits on each; it has no gradient."""
    return own if workers == 1 else _summed(own)


class _SumOverWorkers(torch.autograd.Function):
    """The sum of a tensor over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
