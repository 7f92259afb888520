"""The network of a run, its optimizer and its schedule."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from experiments.models import BlockClassifier, SequenceClassifier
from experiments.peers import PEERS, PeerClassifier
from experiments.train.config import OF_BLOCKS, OF_OURS, TrainConfig
from experiments.train.task import Input, Task
from irevrnn import parameter_groups


class Sizes(NamedTuple):
    """All of a task that its network depends on."""

    input_size: int
    num_classes: int
    read_at: tuple[int, ...] | None = None


def make_model(config: TrainConfig, task: Task | Sizes) -> nn.Module:
    """Build the network of ``config`` for the sequences of ``task``."""
    sizes = (task.input_size, task.num_classes, config.hidden_size, config.num_layers)
    options: dict[str, Any] = {"dropout": config.dropout, "read": config.read}
    options["read_at"] = task.read_at
    peer = PEERS.get(config.model)
    names = OF_OURS if peer is None else peer.options
    options |= {name: getattr(config, name) for name in names}
    if options.get("norm") == "none":
        options["norm"] = None
    if peer is not None:
        return PeerClassifier(config.model, *sizes, **options)
    if config.block:
        options |= {name: getattr(config, name) for name in ("width", *OF_BLOCKS)}
        return BlockClassifier(*sizes, **options)
    return SequenceClassifier(*sizes, residual=config.residual, **options)


def count_parameters(model: nn.Module) -> int:
    """Return the number of learnt numbers in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward(model: nn.Module, x: Input) -> Tensor:
    """Apply ``model`` to sequences, with their lengths if there are any."""
    sequences, *lengths = x if isinstance(x, tuple) else (x,)
    output: Tensor = model(in_dtype_of(model, sequences), *lengths)
    return output


def in_dtype_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return x in the dtype of the parameters: Fabric sees to it for the model it has set up."""
    return x.to(next(model.parameters()).dtype)


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW with weight decay on matrices only and learning rates of the recurrence's own."""
    scales = config.recurrent_lr_scale, config.coupling_lr_scale
    peer = PEERS.get(config.model)
    recurrent = ("recurrent_weight",) if peer is None else peer.recurrent
    groups = parameter_groups(model, config.lr, config.weight_decay, *scales, recurrent)
    return torch.optim.AdamW(groups)


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Build the schedule of the learning rate over all ``steps`` of the run."""
    if config.schedule == "onecycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
    return CosineAnnealingLR(optimizer, steps)
