"""The network of a run, its optimizer and its schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.models import SequenceClassifier
from experiments.peers import PeerClassifier
from experiments.train.config import TrainConfig
from experiments.train.task import Sequences, Task


def make_model(config: TrainConfig, task: Task) -> nn.Module:
    """Build the network of ``config`` for the sequences of ``task``."""
    sizes = (task.input_size, task.num_classes, config.hidden_size, config.num_layers)
    if config.model != "irevrnn":
        return PeerClassifier(
            config.model, *sizes, dropout=config.dropout, read=config.read, read_at=task.read_at
        )
    return SequenceClassifier(
        *sizes,
        num_couplings=config.num_couplings,
        activation=config.activation,
        longest_period=config.longest_period,
        shortest_period=config.shortest_period,
        longest_memory=config.longest_memory,
        norm=None if config.norm == "none" else config.norm,
        dropout=config.dropout,
        residual=config.residual,
        read=config.read,
        memory=config.memory,
        memory_budget=config.memory_budget,
        read_at=task.read_at,
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of learnt numbers in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward(model: nn.Module, x: Sequences) -> Tensor:
    """Apply ``model`` to sequences, with their lengths if there are any."""
    return model(*x) if isinstance(x, tuple) else model(x)


def make_average(network: nn.Module, decay: float) -> AveragedModel:
    """Start a running average of the weights, and of the statistics of batch norm."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW with weight decay on matrices only and learning rates of the recurrence's own."""
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"lr": config.lr, "weight_decay": config.weight_decay},
        "vectors": {"lr": config.lr},
        "recurrent weights": {"lr": config.lr * config.recurrent_lr_scale},
        "couplings": {"lr": config.lr * config.coupling_lr_scale},
    }
    for name, parameter in model.named_parameters():
        groups[_group_of(name, parameter)].setdefault("params", []).append(parameter)
    return torch.optim.AdamW([g for g in groups.values() if "params" in g], weight_decay=0.0)


def _group_of(name: str, parameter: nn.Parameter) -> str:
    if name.endswith("recurrent_weight"):
        return "recurrent weights"
    if name.endswith(("coupling_a", "coupling_b")):
        return "couplings"
    return "matrices" if parameter.ndim >= 2 else "vectors"


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Build the schedule of the learning rate over all ``steps`` of the run."""
    if config.schedule == "onecycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return LambdaLR(optimizer, lambda step: 1.0)
