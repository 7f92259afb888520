"""What a training run can be told, written down once: for Python, the command line and the results.

A field of :class:`TrainConfig` is an argument in Python, an option of ``python -m experiments.train``
(with its help and default) and an entry of ``results.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.models import READS
from experiments.peers import RECURRENCES
from irevrnn.layer import LONGEST_MEMORY, SHORTEST_PERIOD, check_memory, check_periods
from irevrnn.strategies.auto import parse_bytes
from irevrnn.strategies.rules import INVERTIBLE
from irevrnn.strategies.rules import IN_FIXED_POINT, OF_THE_STACK, STRATEGIES

if TYPE_CHECKING:
    from experiments.train.task import Task


class ConfigError(ValueError):
    """A run cannot be as it was asked for; the message names the field."""


def option(default: Any, help: str, **limits: Any) -> Any:
    """A field of a configuration.

    Args:
        default: its default.
        help: what it is, for ``--help``.
        limits: ``choices`` it must be one of, ``least`` it must not be below, or
            ``operational=True`` if a result does not depend on it.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ABC):
    """A training run, whatever it trains on. The configuration of a task adds that."""

    # the network
    model: str = option("irevrnn", "the network", choices=("irevrnn", *RECURRENCES))
    hidden_size: int = option(128, "units per layer", least=1)
    num_layers: int = option(6, "layers", least=1)
    num_couplings: int = option(3, "couplings per unit (irevrnn)", least=0)
    activation: str = option(
        "relu", "output nonlinearity (irevrnn)",
        choices=("relu", "tanh", "sigmoid", "leaky_relu", "identity"),
    )  # fmt: skip
    norm: str = option(
        "batch", "normalisation of the input drive (irevrnn)", choices=("batch", "layer", "none")
    )
    dropout: float = option(0.0, "probability of dropping a unit after a layer", least=0)
    longest_period: float | None = option(
        None, "start the first coupling so that units oscillate, with periods of up to so many "
        "steps; without it, couplings start near 0 (irevrnn)",
    )  # fmt: skip
    shortest_period: float = option(
        SHORTEST_PERIOD, "of these periods, in steps, above 2 (irevrnn)"
    )
    longest_memory: float = option(
        LONGEST_MEMORY, "time constant, in steps, of the unit that starts with the longest memory "
        "(irevrnn)",
    )  # fmt: skip
    residual: bool = option(False, "add a layer's input to its output (irevrnn)")
    read: str = option(
        "last", "what of the last layer's output is classified: its last step, or the mean over "
        "time", choices=READS,
    )  # fmt: skip
    memory: str = option(
        "recompute", "what is saved for the backward pass (irevrnn)",
        choices=STRATEGIES,
    )  # fmt: skip
    memory_budget: str | None = option(
        None, "with --memory auto: what a step may need, such as 256MB (irevrnn)"
    )

    # the optimization
    epochs: int = option(10, "passes over the training data; the schedule spans them", least=1)
    batch_size: int = option(64, "sequences per step", least=1)
    lr: float = option(4e-3, "learning rate (the highest of the schedule)", least=0)
    schedule: str = option(
        "onecycle", "how the learning rate changes", choices=("onecycle", "cosine", "constant")
    )
    weight_decay: float = option(
        0.0, "of AdamW, on weight matrices alone; with 0 it is Adam", least=0
    )
    recurrent_lr_scale: float = option(
        0.1, "factor on the learning rate of recurrent weights: a long memory is one close to 1, "
        "which a step must not jump over (irevrnn)", least=0,
    )  # fmt: skip
    coupling_lr_scale: float = option(
        0.1, "factor on the learning rate of couplings (irevrnn)", least=0
    )
    clip: float = option(1.0, "largest norm of the gradient", least=0)
    label_smoothing: float = option(0.0, "share of the target spread over all classes", least=0)
    average: float = option(
        0.0, "decay of a running average of the weights, which is judged in their place; 0: the "
        "weights themselves are", least=0,
    )  # fmt: skip
    calibrate: int = option(
        0, "training batches over which batch norm takes its statistics afresh before weights are "
        "judged; 0: it keeps the running ones", least=0,
    )  # fmt: skip
    keep: str = option(
        "best", "test the weights of the epoch with the best validation accuracy, or of the last",
        choices=("best", "last"),
    )  # fmt: skip
    test: bool = option(True, "read the test data at the end (not while settings are chosen)")

    # the data
    data: Path | None = option(
        None, "folder of the data sets (IREVRNN_DATA, or data/ of the repository, if not given)",
        operational=True,
    )  # fmt: skip
    train_subset: int | None = option(None, "train on the first so many sequences only", least=1)
    eval_subset: int | None = option(
        None, "validate and test on the first so many sequences only", least=1
    )

    # the run
    seed: int = option(0, "of weights, dropout and the order of the data", least=0)
    seeds: int = option(1, "runs, with one seed after the other from seed on", least=1)
    device: str = option(
        "auto", "auto (a GPU if there is one), cpu, cuda or cuda:N", operational=True
    )
    precision: str = option(
        "32-true", "of Lightning Fabric", choices=("32-true", "64-true", "bf16-mixed", "16-mixed")
    )
    threads: int | None = option(
        None, "CPU threads (PyTorch's choice, if not given)", least=1, operational=True
    )
    out: Path = option(Path("build/train"), "folder for log, checkpoints and results",
                       operational=True)  # fmt: skip
    resume: bool = option(
        False, "go on from the last checkpoint in --out, if there is one, to the same bits as if "
        "never stopped (given the same device and threads)", operational=True,
    )  # fmt: skip
    checkpoint_every: int | None = option(
        None, "steps between checkpoints (there is one after each epoch anyway)", least=1,
        operational=True,
    )  # fmt: skip
    max_minutes: float | None = option(
        None, "write a checkpoint and stop after so many minutes; --resume goes on", least=0,
        operational=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check every field against its limits.

        Raises:
            ConfigError: a field is out of its limits, or two do not go together.
        """
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.average >= 1:
            raise ConfigError(f"average must be below 1; got {self.average}")
        if self.model == "irevrnn":
            self._check_start()
        self._check_memory()

    def _check_start(self) -> None:
        try:
            check_memory(self.longest_memory)
            check_periods(self.shortest_period, self.longest_period, self.num_couplings)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _check_memory(self) -> None:
        if self.memory in OF_THE_STACK and self.norm == "batch":
            raise ConfigError(
                f"norm must be layer or none to train with memory {self.memory!r}, which never has "
                "all steps at once; got 'batch'"
            )
        if self.memory in IN_FIXED_POINT and self.activation not in INVERTIBLE:
            raise ConfigError(
                f"activation must be one of {', '.join(INVERTIBLE)} with memory {self.memory!r}, "
                f"which undoes it; got {self.activation!r}"
            )
        if (self.memory == "auto") != (self.memory_budget is not None):
            raise ConfigError(
                "memory_budget must be given with memory 'auto', such as 256MB, and with no other; "
                f"got {self.memory_budget!r} with {self.memory!r}"
            )
        if self.memory_budget is not None:
            try:
                parse_bytes(self.memory_budget)
            except ValueError as error:
                raise ConfigError(str(error)) from None

    @abstractmethod
    def task(self, device: torch.device) -> Task:
        """The data to train on, as batches on ``device``."""

    @classmethod
    def of(cls, **given: Any) -> TrainConfig:
        """The configuration with ``given`` fields; a task may have other defaults for the rest."""
        return cls(**given)

    def runs(self) -> list[tuple[str, TrainConfig]]:
        """The runs that this configuration asks for, each with the name of its folder in ``out``.

        A single run has no name: it has ``out`` for itself.
        """
        if self.seeds == 1:
            return [("", self)]
        return [
            (f"seed{seed}", dataclasses.replace(self, seed=seed, seeds=1))
            for seed in range(self.seed, self.seed + self.seeds)
        ]

    def identity(self) -> dict[str, Any]:
        """The fields that a result depends on: a resumed run must share them with its beginning."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if "operational" not in f.metadata}


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    choices, least = field.metadata.get("choices"), field.metadata.get("least")
    if choices is not None and value not in choices:
        raise ConfigError(
            f"{field.name} must be one of {', '.join(map(str, choices))}; got {value!r}"
        )
    if least is not None and value is not None and not value >= least:
        raise ConfigError(f"{field.name} must be at least {least}; got {value!r}")


def add_arguments(parser: argparse.ArgumentParser, kind: type[TrainConfig]) -> None:
    """Give ``parser`` an option for each field of ``kind``; what is not given stays away."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        arguments: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field)}
        if hints[field.name] is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            arguments["type"] = _plain(hints[field.name])
            arguments["choices"] = field.metadata.get("choices")
            arguments["metavar"] = (
                None if arguments["choices"] else field.name.split("_")[-1].upper()
            )
        parser.add_argument(f"--{field.name.replace('_', '-')}", **arguments)


def _help(field: dataclasses.Field[Any]) -> str:
    if field.default is None:
        return field.metadata["help"]
    return f"{field.metadata['help']} (default: {field.default})"


def _plain(hint: Any) -> Any:
    """``int`` of ``int | None``."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return hint
