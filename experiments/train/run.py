"""The state of a training run, and one step of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.models import embedding_l1, forgotten_bits
from experiments.provenance import provenance
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.model import (
    forward,
    in_dtype_of,
    make_optimizer,
    make_schedule,
)
from experiments.train.networks import Block, Gated, IRevRNN, Reversible
from experiments.train.task import Input, Task
from irevrnn.strategies.rules import CHUNKWISE


@dataclass
class Progress:
    """How far a run has come, apart from its weights."""

    #: Loss summed over the batches of this epoch, and figure over their sequences, (2,) float64.
    totals: Tensor
    epoch: int = 0  # finished ones
    batch: int = 0  # finished ones of the epoch
    seconds: float = 0.0  # over all sessions of the run
    processor_seconds: float = 0.0  # likewise
    best: dict[str, Any] | None = None  # the row of ``history`` whose weights are to be tested
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per epoch, as in log.csv


class Run:
    """A training run: its task, network, optimizer and progress."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.fabric = make_fabric(config)
        torch.manual_seed(config.seed)
        self.task = config.task(self.fabric.device)
        _check_task(config, self.task)
        try:
            self.network = config.model.build(self.task)
        except ValueError as error:  # sizes and options that do not go together
            raise ConfigError(str(error)) from None
        self.clip_weights = getattr(self.network.rnn, "clip_recurrent_weights_", lambda: None)
        optimizer = make_optimizer(config, self.network)
        self.total_steps = config.epochs * self.task.steps_per_epoch
        self.schedule = make_schedule(config, optimizer, self.total_steps)
        self.model, self.optimizer = self.fabric.setup(self.network, optimizer)
        self.average: AveragedModel | None = None
        if config.average:  # of the weights, and of the statistics of batch norm
            decay = get_ema_multi_avg_fn(config.average)
            self.average = AveragedModel(self.network, multi_avg_fn=decay, use_buffers=True)
        self.progress = Progress(self.zero_totals())
        self.provenance = provenance()
        self.commits: list[str | None] = [self.provenance["git_commit"]]  # of each session
        self.started, self.processor_started = time.monotonic(), time.process_time()

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated, kept and tested."""
        return self.model if self.average is None else self.average.module

    def step(self, x: Input, y: Tensor) -> None:
        """Take one optimizer step on a batch."""
        output = forward(self.model, x)
        loss = self.task.objective.loss(output, y, self.config.label_smoothing)
        self.optimizer.zero_grad()
        self.fabric.backward(loss + self._penalty(x))
        # Infinite gradients are no error: the loss scaling of 16-mixed provokes them now and then.
        if self.config.clip:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.schedule.step()
        self.clip_weights()
        if self.average is not None:
            self.average.update_parameters(self.network)
        figure = self.task.objective.total(output, y)
        # Of as many sequences as a full batch has: a task may make smaller ones.
        figure = figure * (self.config.batch_size / len(y))
        self.progress.totals += torch.stack([loss.detach().double(), figure])
        self.progress.batch += 1

    def _penalty(self, x: Input) -> Tensor | float:
        penalty: Tensor | float = 0.0
        options = self.config.model
        if isinstance(options, Reversible) and options.bits_penalty:
            bits = forgotten_bits(self.network)
            assert bits is not None  # there was a forward pass
            penalty = options.bits_penalty * bits
        if isinstance(options, Block | Gated) and options.sparsity:
            inputs = in_dtype_of(self.network, x[0] if isinstance(x, tuple) else x)
            penalty = penalty + options.sparsity * embedding_l1(self.network, inputs)
        return penalty

    def means(self) -> tuple[float, float]:
        """Return the mean loss and figure (such as accuracy) of the epoch so far.

        Raises:
            FloatingPointError: the loss is infinite or NaN.
        """
        loss, figure = (self.progress.totals / self.progress.batch).tolist()
        self.check_finite("training loss", loss)
        return loss, figure / self.config.batch_size

    def check_weights(self) -> None:
        """Raise a FloatingPointError if a weight is infinite or NaN."""
        largest = [p.detach().abs().max().double() for p in self.model.parameters() if p.numel()]
        self.check_finite("largest weight", torch.stack(largest).max().item())

    def check_finite(self, name: str, value: float) -> None:
        """Raise a FloatingPointError if ``value`` is infinite or NaN."""
        if not math.isfinite(value):
            where = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
            raise FloatingPointError(
                f"the {name} is {value} at {where} or just before it: try a lower lr "
                f"(now {self.config.lr}) or clip (now {self.config.clip})"
            )

    def zero_totals(self) -> Tensor:
        """Return the totals of an epoch that has not begun."""
        return torch.zeros(2, dtype=torch.float64, device=self.fabric.device)

    def seconds(self) -> float:
        """Return the time spent on the run, by this session and those before it."""
        return self.progress.seconds + time.monotonic() - self.started

    def processor_seconds(self) -> float:
        """Return the processor time of all threads of this process, counted in the same way."""
        now = time.process_time()
        return self.progress.processor_seconds + now - self.processor_started


def make_fabric(config: TrainConfig) -> Fabric:
    """Return Lightning Fabric on the device of ``config``; ConfigError if there is none such."""
    device = config.device
    if device == "auto":  # Fabric's "auto" would take an Apple GPU: the kernels have no Metal
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and not int(number or 0) < torch.cuda.device_count():
        raise ConfigError(f"device is {device!r}, but PyTorch sees no such GPU here")
    devices: Any = [int(number)] if number and kind == "cuda" else 1
    precision: Any = config.precision
    fabric = Fabric(accelerator=kind, devices=devices, precision=precision)
    fabric.launch()
    return fabric


def _check_task(config: TrainConfig, task: Task) -> None:
    if task.val_batches is None and (config.keep == "best" or not config.test):
        raise ConfigError(
            "without validation data, keep must be 'last' and test True; got keep "
            f"{config.keep!r}, test {config.test}"
        )
    small = config.batch_size == 1 or getattr(config, "steps_per_batch", None) is not None
    options, several = config.model, task.read_at is not None
    if isinstance(options, IRevRNN) and small and not several:
        raise ConfigError(
            "plain layers end in a batch norm, which takes two sequences at least: choose block, "
            "or a batch_size above 1 without steps_per_batch"
        )
    truncated = getattr(options, "gradient_steps", None)
    if truncated is not None and not several:
        raise ConfigError(
            "gradient_steps must be None where one answer is read from a sequence, after its last "
            f"step; got {truncated}"
        )
    if task.tokens and not isinstance(options, Block | Gated):
        raise ConfigError(f"model must have gated blocks, to embed tokens; got {options.name}")
    if several and options.read != "last":
        raise ConfigError(
            f"read must be last where several answers are read from a sequence; got {options.read}"
        )
    if (
        isinstance(options, Reversible)
        and options.norm == "batch"
        and (several or options.memory in CHUNKWISE)
    ):
        raise ConfigError(
            "norm must be layer or none where several answers are read from a sequence, and with "
            f"memory {', '.join(CHUNKWISE)}: the network never has all steps; got 'batch'"
        )
