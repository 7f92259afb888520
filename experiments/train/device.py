"""Device and precision of a run, alone or as one of the workers that ``torchrun`` started."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from experiments.train.config import ConfigError, TrainConfig

#: How long a worker waits for the others before it fails. One worker builds the kernels and fetches
#: the data while the others wait.
PATIENCE = timedelta(minutes=10)


def launched() -> bool:
    """Return whether torchrun started this process, with others beside it."""
    return dist.is_available() and dist.is_torchelastic_launched() and _count("WORLD_SIZE") > 1


def make_fabric(config: TrainConfig) -> Fabric:
    """Launch Lightning Fabric on the device, and in the precision, of ``config``.

    Raises:
        ConfigError: there is no such device, or too few for all workers.
    """
    kind, number = _parse_device(config.device)
    placement: dict[str, Any] = {"accelerator": kind, "precision": config.precision}
    if launched():
        _check_workers(config, kind, number)
        here = _count("LOCAL_WORLD_SIZE")
        placement |= {
            "devices": here,
            "num_nodes": _count("WORLD_SIZE") // here,
            "strategy": DDPStrategy(timeout=PATIENCE),
        }
    else:
        placement |= {"devices": [int(number)] if number and kind == "cuda" else 1}
    fabric = Fabric(**placement)
    fabric.launch()
    return fabric


def _parse_device(device: str) -> tuple[str, str]:
    """Return the kind, cpu or cuda, and the number of a device, which may be empty."""
    if device == "auto":  # Fabric's "auto" would take an Apple GPU: the kernels have no Metal
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but PyTorch sees no GPU here; use cpu or auto")
    return kind, number


def _check_workers(config: TrainConfig, kind: str, number: str) -> None:
    if number:
        raise ConfigError(
            "device must be auto, cpu or cuda with several workers, each of which takes its own; "
            f"got {config.device!r}"
        )
    here = _count("LOCAL_WORLD_SIZE")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"device is cuda for {here} workers on this machine, which has "
            f"{torch.cuda.device_count()} GPUs: lower --nproc-per-node"
        )


def _count(name: str) -> int:
    return int(os.environ[name])
