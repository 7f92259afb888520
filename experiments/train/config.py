"""The configuration of a training run.

A field of :class:`TrainConfig` is an argument in Python, an option of the command line (with its
help and default) and, where results depend on it, an entry of ``results.json``.
"""

from __future__ import annotations

import dataclasses
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from experiments.models import READS
from experiments.peers import PEERS
from experiments.peers.lru import SHORTEST_MEMORY, check_ring
from experiments.train.task import Task
from irevrnn.activations import ACTIVATIONS
from irevrnn.modules.initial_values import (
    LONGEST_MEMORY,
    LONGEST_PERIOD,
    SHORTEST_PERIOD,
    check_memory,
    check_periods,
)
from irevrnn.strategies.auto import parse_bytes
from irevrnn.strategies.rules import (
    OF_THE_STACK,
    STRATEGIES,
    check_budget,
    require,
    unsupported_reason,
)

#: Defaults with gated blocks: all that is nonlinear is outside of the recurrence.
BLOCK_DEFAULTS: dict[str, Any] = {
    "hidden_size": 64, "num_layers": 4, "num_couplings": 1, "activation": "identity",
    "norm": "layer", "longest_period": LONGEST_PERIOD, "read": "mean",
}  # fmt: skip

#: Options of our networks; and those of gated blocks, with the values that plain layers require.
OF_OURS = (
    "num_couplings", "activation", "norm", "longest_period", "shortest_period", "longest_memory",
    "memory", "memory_budget",
)  # fmt: skip
OF_BLOCKS = {
    "forgets": True, "gate": True, "coupling_activation": "identity", "sparsity": None,
    "gradient_steps": None,
}  # fmt: skip
#: Options by which our networks are trained; some peers have ``recurrent_lr_scale``, too.
_OF_OUR_TRAINING = ("block", "bits_penalty", "coupling_lr_scale", "recurrent_lr_scale")


class ConfigError(ValueError):
    """A run that cannot be done as configured; the message names the field."""


def option(default: Any, help: str, **limits: Any) -> Any:
    """Declare a field of a configuration, with its text for ``--help``.

    ``limits`` are ``choices``, the allowed values; ``least`` and ``most``, the lowest and the
    highest of them; ``below``, a bound that they do not reach; and ``operational=True`` if results
    do not depend on the field.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def with_default(name: str, default: Any) -> Any:
    """Declare a field of :class:`TrainConfig` again, with the default of a task."""
    metadata = TrainConfig.__dataclass_fields__[name].metadata
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ABC):
    """The options that all tasks share; the configuration of a task adds its own."""

    #: Whether several answers are read from a sequence, each after a step of its own.
    several_answers: ClassVar[bool] = False

    # fmt: off
    # the network
    model: str = option("irevrnn", "the network", choices=("irevrnn", *PEERS))
    hidden_size: int = option(128, "units per layer", least=1)
    num_layers: int = option(6, "layers", least=1)
    num_couplings: int = option(3, "couplings per unit (irevrnn)", least=0)
    activation: str = option("relu", "output nonlinearity (irevrnn)", choices=ACTIVATIONS)
    norm: str = option("batch", "normalisation of the input projection (irevrnn), of a layer's "
                       "output (indrnn) or of a block's input (lru, linoss, mingru)",
                       choices=("batch", "layer", "none"))
    block: bool = option(False, "gated blocks (IRevBlock) in place of plain layers (irevrnn)")
    width: int = option(64, "features between gated blocks (irevrnn --block, lru, linoss, "
                        "mingru)", least=1)
    forgets: bool = option(True, "units forget; without, u = 1 (irevrnn --block)")
    gate: bool = option(True, "the output projection has a gate (irevrnn --block)")
    coupling_activation: str = option("identity", "nonlinearity of the couplings "
                                      "(irevrnn --block)", choices=ACTIVATIONS)
    sparsity: float | None = option(
        None, "weight of an L1 penalty on what the embedding passes on, added to the loss; the "
        "embedding then ends in a ReLU, and blocks have no biases (but that of minGRU's gate), so "
        "that a step that means nothing adds nothing to a state of the first block (irevrnn "
        "--block, lru, linoss, mingru)",
        least=0)
    gradient_steps: int | None = option(
        None, "steps before the first of several answers that gradients go back through; None goes "
        "through all (irevrnn --block)", least=1)
    dropout: float = option(0.0, "probability of dropping a unit after a layer", least=0,
                            below=1)
    longest_period: float | None = option(
        None, "longest period, in steps, with which units oscillate at the start; None starts the "
        "couplings near 0 (irevrnn)")
    shortest_period: float = option(
        SHORTEST_PERIOD, "shortest of these periods, in steps, above 2 (irevrnn); phases start up "
        "to 2 pi over it (lru)")
    longest_memory: float = option(
        LONGEST_MEMORY, "longest time constant, in steps, at the start (irevrnn, lru); steps to "
        "remember over (indrnn)")
    shortest_memory: float = option(
        SHORTEST_MEMORY, "shortest time constant, in steps, at the start (lru)")
    forget_bias: float = option(1.0, "bias of the forget gate at the start (lstm)")
    chrono: float | None = option(
        None, "longest dependency, in steps, of chrono initialisation of the gates; None does "
        "without (lstm, gru, revgru, mingru)", least=2)
    most_bits: float | None = option(
        None, "most bits that a unit forgets in a step; None sets no bound (revgru)", least=0)
    time_step: float = option(0.042, "time step of the oscillators (cornn)", least=0)
    stiffness: float = option(2.7, "stiffness gamma of the oscillators (cornn)", least=0)
    damping: float = option(4.7, "damping epsilon of the oscillators (cornn)", least=0)
    bits_penalty: float = option(
        0.0, "weight of the bits that a unit forgets in a step, added to the loss (irevrnn)",
        least=0)
    residual: bool = option(False, "add a layer's input to its output (irevrnn)")
    read: str = option("last", "classify the last layer's output after the last step, or its mean "
                       "over time", choices=READS)
    memory: str = option("recompute", "what is saved for the backward pass (irevrnn)",
                         choices=STRATEGIES)
    memory_budget: str | None = option(
        None, "memory that a step may need, such as 256MB, for --memory auto, checkpoint and "
        "reversible (irevrnn)")

    # the optimization
    epochs: int = option(10, "passes over the training data; the schedule spans them", least=1)
    epoch_steps: int | None = option(
        None, "steps of an epoch, on a random part of the data; None takes all of it", least=1)
    batch_size: int = option(64, "sequences per step", least=1)
    lr: float = option(4e-3, "learning rate (the highest of the schedule)", least=0)
    schedule: str = option("onecycle", "schedule of the learning rate",
                           choices=("onecycle", "cosine"))
    weight_decay: float = option(0.0, "weight decay of AdamW, on weight matrices only", least=0)
    recurrent_lr_scale: float = option(
        0.1, "factor on the learning rate of recurrent weights, as a step must not jump over a "
        "weight close to 1, a long memory (irevrnn, indrnn); also of nu, theta, gamma (lru) and of "
        "A, dt (linoss)", least=0)
    coupling_lr_scale: float = option(
        0.1, "factor on the learning rate of couplings (irevrnn)", least=0)
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

    # the data
    data: Path | None = option(None, "folder of the data sets; None takes IREVRNN_DATA, or data/ "
                               "of the repository", operational=True)
    train_subset: int | None = option(
        None, "train on the first sequences only (of recordings of movements: recordings)", least=1)
    eval_subset: int | None = option(
        None, "validate and test on the first sequences only, likewise", least=1)

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

    def __post_init__(self) -> None:
        """Raise a ConfigError for a field out of its limits, or fields that do not fit."""
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata
            choices = limits.get("choices")
            if choices is not None and value not in choices:
                allowed = ", ".join(map(str, choices))
                raise ConfigError(f"{field.name} must be one of {allowed}; got {value!r}")
            for limit, words, within in _LIMITS:
                bound = limits.get(limit)
                if None not in (bound, value) and not within(value, bound):
                    raise ConfigError(f"{field.name} must be {words} {bound}; got {value!r}")
        if self.block and self.model != "irevrnn":
            raise ConfigError(f"block=True needs model='irevrnn'; got model={self.model!r}")
        if self.block and self.residual:
            raise ConfigError(
                "residual=True needs block=False: a block adds its input as it is; got block=True"
            )
        peers = PEERS[self.model].options if self.model in PEERS else ()
        for name, usual in OF_BLOCKS.items():
            has = self.block or name in peers
            if not has and (value := getattr(self, name)) != usual:
                able = [kind for kind, peer in PEERS.items() if name in peer.options]
                others = f", or model {', '.join(able)}" if able else ""
                raise ConfigError(
                    f"{name}={value!r} needs block=True with model='irevrnn'{others}; got "
                    f"model={self.model!r}, block={self.block}"
                )
        if self.model == "irevrnn":
            _named(check_memory, self.longest_memory)
            _named(check_periods, self.shortest_period, self.longest_period, self.num_couplings)
            self._check_strategy()
        if self.model in PEERS and not PEERS[self.model].keeps_steps and self.read != "mean":
            raise ConfigError(f"read must be 'mean' with model={self.model!r}; got {self.read!r}")
        if self.model == "indrnn":
            _named(check_memory, self.longest_memory)
        if self.model == "lru":
            _named(check_ring, self.shortest_memory, self.longest_memory, self.shortest_period)

    def _check_strategy(self) -> None:
        if self.memory in OF_THE_STACK and self.norm == "batch":
            raise ConfigError(
                f"norm must be layer or none to train with memory {self.memory!r}, which never has "
                "all steps at once; got 'batch'"
            )
        _named(require, unsupported_reason(self.memory, activations=[self.activation]))
        _named(check_budget, self.memory, self.memory_budget)
        if self.memory_budget is not None:
            _named(parse_bytes, self.memory_budget)

    def check_given(self, given: Collection[str]) -> None:
        """Raise a ConfigError if an option in ``given`` says something to another network.

        Defaults of a task may be there for another network than the one that is asked for, so only
        what somebody has chosen is looked at.
        """
        blocks, ours = {"width", *OF_BLOCKS}, {*OF_OURS, *_OF_OUR_TRAINING}
        if self.model == "irevrnn":
            own = ours | (blocks if self.block else {"residual"})
        else:
            peer = PEERS[self.model]
            own = {*peer.options} | ({"recurrent_lr_scale"} if peer.recurrent else set())
        everything = ours.union(blocks, {"residual"}, *(peer.options for peer in PEERS.values()))
        for name in [name for name in given if name in everything - own]:
            usual, value = type(self).__dataclass_fields__[name].default, getattr(self, name)
            if value != usual:
                network = f"model={self.model!r}, block={self.block}"
                raise ConfigError(f"{name}={value!r} means nothing with {network}: leave it out")

    @abstractmethod
    def task(self, device: torch.device) -> Task:
        """Load the data, as batches on ``device``."""

    @classmethod
    def of(cls, **given: Any) -> TrainConfig:
        """Return the configuration with ``given`` fields; a task may choose the other defaults."""
        return cls(**cls.block_defaults(given) | given)

    @classmethod
    def block_defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return the defaults that go with gated blocks, or with a peer, if that is asked for."""
        peer = PEERS.get(given.get("model", "irevrnn"))
        if peer and not peer.keeps_steps:
            return {"read": "mean"}
        if not (given.get("block") or (peer and peer.gated)):
            return {}
        return BLOCK_DEFAULTS | ({"read": "last"} if cls.several_answers else {})

    @classmethod
    def variants(cls) -> dict[str, dict[str, Any]]:
        """Return fields that choose other defaults, by how the command line gives them."""
        gated = [f"--model {name}" for name, peer in PEERS.items() if peer.gated]
        return {", ".join(["--block", *gated]): {"block": True}}

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
        """Return the fields that results depend on, which do not change when a run is resumed."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if "operational" not in f.metadata}

    def check_same(self, written: dict[str, Any]) -> None:
        """Raise a ConfigError unless a run with the identity ``written`` can be resumed."""
        # A field that did not exist yet when the run was written had its default.
        known = {field.name: field.default for field in dataclasses.fields(self)} | written
        for name, value in self.identity().items():
            if known[name] != value:
                raise ConfigError(
                    f"{name} is {value!r}, but the run in {self.out} has {known[name]!r}: "
                    "resume it with the options it was started with, or choose another out"
                )


_LIMITS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("least", "at least", operator.ge),
    ("most", "at most", operator.le),
    ("below", "below", operator.lt),
)


def _named(check: Callable[..., Any], *values: Any) -> None:
    """Run a check of the library, whose ValueError names the argument."""
    try:
        check(*values)
    except ValueError as error:
        raise ConfigError(str(error)) from None
