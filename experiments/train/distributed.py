"""Where a run runs: its device, and the workers that ``torchrun`` started.

Each worker has the whole network and takes an equal share of every batch. Gradients, batch
statistics and figures are those of the whole batch, so that a run matches that of a single process
up to rounding (and dropout, which each worker draws for its share).
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
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from experiments.train.config import ConfigError, TrainConfig

#: How long a worker waits for the others before it fails. One worker builds the kernels and fetches
#: the data while the others wait.
PATIENCE = timedelta(minutes=10)


def launched() -> bool:
    """Return whether torchrun started this process, with others beside it."""
    return dist.is_available() and dist.is_torchelastic_launched() and _count("WORLD_SIZE") > 1


def make_fabric(config: TrainConfig) -> Fabric:
    """Launch Lightning Fabric on the device of ``config``; ConfigError if there is none such."""
    device = config.device
    if device == "auto":  # Fabric's "auto" would take an Apple GPU: the kernels have no Metal
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but PyTorch sees no GPU here; use cpu or auto")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {device!r}, but PyTorch sees {torch.cuda.device_count()} GPUs here, "
            "numbered from 0"
        )
    placement: dict[str, Any] = {"devices": [int(number)] if number and kind == "cuda" else 1}
    if launched():
        placement = _place_workers(device)
    placement["precision"] = config.precision
    fabric = Fabric(accelerator=kind, **placement)
    fabric.launch()
    return fabric


def _place_workers(device: str) -> dict[str, Any]:
    """Return the arguments of Fabric for the workers of torchrun."""
    if ":" in device:
        raise ConfigError(
            "device must be auto, cpu or cuda with several workers, each of which takes its own; "
            f"got {device!r}"
        )
    here = _count("LOCAL_WORLD_SIZE")
    if device == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"device is cuda for {here} workers on this machine, which has "
            f"{torch.cuda.device_count()} GPUs: lower --nproc-per-node"
        )
    nodes, strategy = _count("WORLD_SIZE") // here, DDPStrategy(timeout=PATIENCE)
    return {"devices": here, "num_nodes": nodes, "strategy": strategy}


def _count(name: str) -> int:
    return int(os.environ[name])


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
    """Return a worker's share of a batch; of unequal shares a mean of means would be wrong."""
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
    """Batch normalisation over the shares of all workers, (N, C) or (N, C, L) of any N.

    PyTorch's SyncBatchNorm is for GPUs alone; this one runs wherever the process group does.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(self.weight.dtype)  # under autocast it may be half precision
        x = x.movedim(1, -1)  # channels last, to reduce over all before
        others = tuple(range(x.dim() - 1))
        own_count = torch.tensor(x.numel() // x.shape[-1], device=x.device)
        count = sum_(own_count, dist.get_world_size())
        mean = _SumOverWorkers.apply(x.sum(others)) / count
        centred = x - mean
        variance = _SumOverWorkers.apply(centred.square().sum(others)) / count
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        # As in nn.BatchNorm1d, momentum None stands for the plain mean over all batches.
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.detach(), share)
        self.running_var.lerp_(variance.detach() * (count / (count - 1)), share)
        output = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        return output.movedim(-1, 1).to(input.dtype)


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
