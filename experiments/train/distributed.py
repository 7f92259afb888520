"""Training with several workers: shares of a batch, statistics over all of them, and a clean exit.

Each worker has the whole network and takes an equal share of every batch. Gradients, batch
statistics and figures are those of the whole batch, so that a run matches that of a single process
up to rounding (and dropout, which each worker draws for its share).
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def leaving_in_order() -> Iterator[None]:
    """Close the process group opened in the block, after everything wrapped for it is gone.

    A DistributedDataParallel wrapper that outlives its gloo group, or is destroyed with it,
    sometimes deadlocks in the group's destructor, with any model (pytorch/pytorch#56297). So the
    block must not hand out the wrapper; an exception's frames are cleared here.
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
    """Return a worker's share of a batch (its first dimension).

    Raises:
        ValueError: the batch cannot be divided equally, so that a mean of means would be wrong.
    """
    if len(batch) % workers:
        raise ValueError(f"a batch of {len(batch)} cannot be shared equally by {workers} workers")
    return batch[rank::workers]


def gathered(own: Any, workers: int) -> list[Any]:
    """Return the objects of all workers, in the order of their ranks."""
    if workers == 1:
        return [own]
    everyones: list[Any] = [None] * workers
    dist.all_gather_object(everyones, own)
    return everyones


def sum_(own: Tensor, workers: int) -> Tensor:
    """Replace a tensor by its sum over all workers, the same bits on each."""
    if workers > 1:
        dist.all_reduce(own)
    return own


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
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        # As in nn.BatchNorm1d, momentum None stands for the plain mean over all batches.
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


def share_statistics(network: nn.Module) -> None:
    """Turn every BatchNorm1d of ``network`` into a :class:`SharedBatchNorm`."""
    for module in network.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = SharedBatchNorm  # the same parameters, buffers and names


class _SumOverWorkers(torch.autograd.Function):
    """The sum of a tensor over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverWorkers.apply(gradients[0])
