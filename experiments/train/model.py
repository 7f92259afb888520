"""The optimizer of a run and its schedule, and what is done with any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from experiments.train.config import TrainConfig
from experiments.train.task import Input
from irevrnn import parameter_groups


def count_parameters(model: nn.Module) -> int:
    """Return the number of learnt numbers in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward(model: nn.Module, x: Input) -> Tensor:
    """Apply ``model`` to sequences, with their lengths if there are any."""
    sequences, *lengths = x if isinstance(x, tuple) else (x,)
    output: Tensor = model(in_dtype_of(model, sequences), *lengths)
    return output


def in_dtype_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return x, if no tokens, in the dtype of the parameters: Fabric does so for its model."""
    return x if not x.is_floating_point() else x.to(next(model.parameters()).dtype)


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW with weight decay on matrices only and learning rates of the recurrence's own."""
    rates = {
        f"{name}_lr_scale": getattr(config.model, f"{name}_lr_scale", 1.0)
        for name in ("recurrent", "coupling", "gate")
    }
    groups = parameter_groups(
        model, config.lr, config.weight_decay, recurrent_names=config.model.recurrent, **rates
    )
    return torch.optim.AdamW(groups, eps=config.epsilon)


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Build the schedule of the learning rate over all ``steps`` of the run."""
    if config.schedule == "onecycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return LambdaLR(optimizer, lambda step: config.share_of_lr(config.epochs * step / steps))
