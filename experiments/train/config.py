"""The configuration of a training run.

A field of :class:`TrainConfig`, or of its network, is an argument in Python, an option of the
command line (with its help and default) and, where results depend on it, an entry of
``results.json``, in which those of the network are not set apart.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from typing_extensions import Self

from experiments.train.networks import NETWORKS, IRevRNN, Network
from experiments.train.options import ConfigError, Options, option
from experiments.train.task import Task


class TrainConfig(Options, ABC):
    """The options that all tasks share; the configuration of a task adds its own."""

    #: The network that is trained if nothing else is said.
    usual_network: ClassVar[str] = "irevrnn"

    model: Network = dataclasses.field(default_factory=IRevRNN)

    # fmt: off
    # the optimization
    epochs: int = option(10, "passes over the training data; the schedule spans them", least=1)
    batch_size: int = option(64, "sequences per step", least=1)
    lr: float = option(4e-3, "learning rate (the highest of the schedule)", least=0)
    schedule: str = option("onecycle", "schedule of the learning rate; by-length is for sequences "
                           "that grow from epoch to epoch",
                           choices=("onecycle", "cosine", "by-length"))
    weight_decay: float = option(0.0, "weight decay of AdamW, on weight matrices only", least=0)
    epsilon: float = option(
        1e-8, "epsilon of AdamW; a larger one keeps steps small where gradients have vanished",
        least=0)
    clip: float = option(1.0, "largest norm of the gradient; 0 leaves it as it is", least=0)
    label_smoothing: float = option(
        0.0, "share of the target that is spread over all classes", least=0, most=1)
    average: float = option(0.0, "decay of a running average of the weights, which is evaluated in "
                            "their place; 0 evaluates the weights themselves", least=0, below=1)
    calibrate: int = option(0, "training batches from which batch norm takes its statistics before "
                            "each evaluation; 0 keeps the running statistics", least=0)
    keep: str = option("best", "test the weights of the epoch with the best validation accuracy, "
                       "or of the last", choices=("best", "last"))
    test: bool = option(True, "test at the end (leave it out while choosing settings)")
    settings_tried: int = option(1, "settings that were compared on the validation data to choose "
                                 "this one, for the results", least=1, operational=True)

    # the run
    seed: int = option(0, "seed of weights, dropout and the order of the data", least=0)
    seeds: int = option(1, "runs, with consecutive seeds from --seed on", least=1)
    device: str = option("auto", "auto (a GPU if there is one), cpu, cuda or cuda:N",
                         operational=True)
    precision: str = option("32-true", "precision of Lightning Fabric",
                            choices=("32-true", "64-true", "bf16-mixed", "16-mixed"))
    threads: int | None = option(None, "CPU threads; None leaves the choice to PyTorch", least=1,
                                 operational=True)
    out: Path = option(Path("build/train"), "folder for log, checkpoints and results",
                       operational=True)
    resume: bool = option(False, "resume the run in --out, if there is one, to the same bits as if "
                          "it had never stopped (on the same device, with the same threads)",
                          operational=True)
    checkpoint_every: int | None = option(None, "steps between checkpoints, beside the one after "
                                          "each epoch", least=1, operational=True)
    max_minutes: float | None = option(None, "write a checkpoint and stop after this time; "
                                       "--resume continues", least=0, operational=True)
    # fmt: on

    @abstractmethod
    def task(self, device: torch.device) -> Task:
        """Load the data, as batches on ``device``."""

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's own defaults, also of options that only some networks have."""
        return {}

    @classmethod
    def of(cls, *, model: str | None = None, **given: Any) -> Self:
        """Return a configuration with ``given`` options of the task and of the network ``model``.

        ConfigError if they have no such option, or not with this value.
        """
        network = _network(model or cls.usual_network)
        options = _without_others(network, cls.presets(given)) | given
        own = {name: options.pop(name) for name in network.names() & options.keys()}
        if unknown := options.keys() - cls.names():
            raise ConfigError(
                f"{min(unknown)} is no option of {cls.__name__} with the network "
                f"{network.__name__.lower()}"
            )
        return cls(model=network(**own), **options)

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Self:
        """Return the configuration with this :meth:`identity`.

        Of older versions, options that only other networks have, or that are gone and None, are
        left out.
        """
        given = updated(written)
        network = _network(given["model"])
        known = {"model"} | cls.names() | network.names()
        options = _without_others(network, given)
        return cls.of(**{k: x for k, x in options.items() if k in known or x is not None})

    def changed(self, **given: Any) -> Self:
        """Return the configuration with some options changed, of the task or of the network."""
        own = {name: given.pop(name) for name in self.model.names() & given.keys()}
        return dataclasses.replace(self, model=dataclasses.replace(self.model, **own), **given)

    def share_of_lr(self, epoch: float) -> float:
        """Return the factor of the learning rate with the schedule ``by-length``."""
        raise ConfigError(
            f"schedule must be onecycle or cosine where lengths do not grow; got {self.schedule}"
        )

    def full_batches(self, sequences: int) -> int:
        """Return how many batches training ``sequences`` fill; ConfigError if not even one."""
        if sequences < self.batch_size:
            raise ConfigError(
                f"batch_size must be at most the {sequences} training sequences; "
                f"got {self.batch_size}"
            )
        return sequences // self.batch_size

    def runs(self) -> list[tuple[str, TrainConfig]]:
        """Return the single runs, each with its folder below ``out`` ("" for one alone)."""
        if self.seeds == 1:
            return [("", self)]
        return [
            (f"seed{seed}", dataclasses.replace(self, seed=seed, seeds=1))
            for seed in range(self.seed, self.seed + self.seeds)
        ]

    def identity(self) -> dict[str, Any]:
        """Return the options that results depend on, which do not change when a run is resumed."""
        fields = [f for f in dataclasses.fields(self) if "operational" not in f.metadata]
        own = {field.name: getattr(self, field.name) for field in fields}
        return own | {"model": self.model.name} | dataclasses.asdict(self.model)

    def check_same(self, written: Mapping[str, Any]) -> None:
        """Raise a ConfigError unless a run with the identity ``written`` can be resumed."""
        # A field that did not exist yet when the run was written had its default.
        fields = [*dataclasses.fields(self), *dataclasses.fields(self.model)]
        known = {field.name: field.default for field in fields} | updated(written)
        for name, value in self.identity().items():
            if known[name] != value:
                raise ConfigError(
                    f"{name} is {value!r}, but the run in {self.out} has {known[name]!r}: "
                    "resume it with the options it was started with, or choose another out"
                )


class DataConfig(TrainConfig):
    """The options of tasks whose data are files."""

    # fmt: off
    data: Path | None = option(None, "folder of the data sets; None takes IREVRNN_DATA, or data/ "
                               "of the repository", operational=True)
    train_subset: int | None = option(
        None, "train on the first sequences only (of recordings of movements: recordings)", least=1)
    eval_subset: int | None = option(
        None, "validate and test on the first sequences only, likewise", least=1)
    # fmt: on


def updated(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as it is now: gated blocks were an option of ``irevrnn`` once.

    Those of older versions have the options of all networks.
    """
    now = {name: value for name, value in written.items() if name != "block"}
    return now | {"model": "block"} if written.get("block") else now


def _network(name: str) -> type[Network]:
    if name not in NETWORKS:
        raise ConfigError(f"model must be one of {', '.join(NETWORKS)}; got {name!r}")
    return NETWORKS[name]


def _without_others(network: type[Network], given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what only other networks have."""
    others = set().union(*(kind.names() for kind in NETWORKS.values())) - network.names()
    return {name: value for name, value in given.items() if name not in others}
