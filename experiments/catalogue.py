"""The experiments of the paper, each by one command: ``python -m experiments NAME``.

Each is an entry of :data:`EXPERIMENTS`: a task, what differs from its defaults, and how many seeds.
The command does the runs that are missing, goes on with one that was stopped or killed, and writes
``paper/results/experiments/NAME.json``. The runs stay in ``build/paper/experiments/NAME``: delete
them to start again. ``--list`` says what there is, ``--time`` how long it will take.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import figures
from experiments.datasets import DataError
from experiments.files import write_text
from experiments.process import threads
from experiments.tasks import TASKS
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.loop import Run, make_model, train_all
from experiments.train.summary import figure_of, summarise
from experiments.train.task import Task
from irevrnn import ReversalError
from irevrnn.allocator import use_caching_allocator

#: Steps between checkpoints: what a killed run has to do again.
CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Experiment:
    """What is run for one line of a table or figure.

    Attributes:
        task: key of ``TASKS``.
        group: what it is compared within: a panel of the figure, a part of the table.
        label: its name there.
        fields: of the configuration, where they differ from the task's defaults.
        seeds: runs of it (or of each fold), from seed 0 on.
        like: another experiment, whose number of parameters it gets, by its ``hidden_size``.
    """

    task: str
    group: str
    label: str
    fields: Mapping[str, Any]
    seeds: int = 1
    like: str | None = None


# What the lines of a group have in common.
_BEST = {
    "hidden_size": 64, "num_layers": 5, "num_couplings": 1, "activation": "tanh",
    "longest_period": 2000, "residual": True, "read": "mean", "epochs": 10, "lr": 6e-3,
    "recurrent_lr_scale": 0.05, "calibrate": 20,
}  # fmt: skip
# Comparisons take digits of 14 by 14 pixels: many runs of minutes.
_SMALL = {"downsample": 2, "hidden_size": 64, "num_couplings": 1, "read": "mean", "epochs": 4}
_QUICK = {
    **_SMALL, "activation": "tanh", "num_layers": 3, "lr": 8e-3, "calibrate": 20,
}  # fmt: skip
_TURNING = {**_QUICK, "longest_period": 600}
# One wide layer makes the most of few parameters. Its steps are shorter, so it gets more of them.
_PEER = {**_SMALL, "num_layers": 1, "lr": 5e-3, "epochs": 12}
_LAYER = {**_TURNING, "norm": "layer", "calibrate": 0}
_LEAKY = {**_LAYER, "activation": "leaky_relu"}
_LONG = {
    "length": 5000, "hidden_size": 64, "num_layers": 2, "num_couplings": 1,
    "activation": "leaky_relu", "batch_size": 64, "batches": 100, "lr": 3e-3,
}  # fmt: skip
# Ten symbols a step apart are told apart by the phases of units that turn fast and hardly decay. In
# 5,000 steps a phase moves by thousands of times what a rate does: rates are learnt all the slower.
_COPY = {
    **_LONG, "hidden_size": 128, "num_layers": 1, "activation": "identity", "shortest_period": 2.5,
    "longest_period": 20, "longest_memory": 1e5, "recurrent_lr_scale": 3e-4,
    "coupling_lr_scale": 1e-3, "batches": 50, "epochs": 8,
}  # fmt: skip
_LSTM = {"length": 5000, "model": "lstm", "num_layers": 1, "batch_size": 64, "lr": 3e-3}
# A step takes several times as long, so epochs are shorter, for a curve with as many points.
_SLOW = {**_LSTM, "batches": 25}

#: Every experiment, by the name of its result file. A peer trains at least as long as what it is
#: compared with: ``wall_seconds`` and the ``seconds`` of the history say how long that was.
EXPERIMENTS: dict[str, Experiment] = {
    "smnist": Experiment("mnist", "MNIST", "sequential", _BEST, 3),
    "pmnist": Experiment(
        "mnist",
        "MNIST",
        "permuted",
        {**_BEST, "permuted": True, "epochs": 16, "label_smoothing": 0.1},
        3,
    ),
    "smnist-indrnn": Experiment(
        "mnist",
        "MNIST",
        "sequential, R = 0 (IndRNN)",
        {**_BEST, "num_couplings": 0, "activation": "relu", "longest_period": None},
    ),
    "smnist-lstm": Experiment(
        "mnist",
        "MNIST",
        "sequential, LSTM",
        {**_PEER, "model": "lstm", "downsample": 1, "lr": 2e-3},
        like="smnist",
    ),
    "couplings-0": Experiment(
        "mnist", "Couplings", "R = 0 (IndRNN), tanh", {**_QUICK, "num_couplings": 0}, 3
    ),
    "couplings-0-relu": Experiment(
        "mnist",
        "Couplings",
        "R = 0 (IndRNN), relu",
        {**_QUICK, "num_couplings": 0, "activation": "relu"},
        3,
    ),
    "couplings-1-still": Experiment("mnist", "Couplings", "R = 1, from near 0", _QUICK, 3),
    "couplings-1": Experiment("mnist", "Couplings", "R = 1, oscillating", _TURNING, 3),
    "couplings-3": Experiment(
        "mnist", "Couplings", "R = 3, oscillating", {**_TURNING, "num_couplings": 3}, 3
    ),
    "residual": Experiment(
        "mnist", "Stack and peers", "residual, R = 1", {**_TURNING, "residual": True}, 3
    ),
    "lstm": Experiment(
        "mnist", "Stack and peers", "LSTM", {**_PEER, "model": "lstm"}, 3, "couplings-1"
    ),
    "gru": Experiment(
        "mnist", "Stack and peers", "GRU", {**_PEER, "model": "gru", "epochs": 6}, 1, "couplings-1"
    ),
    "tanh": Experiment("mnist", "Activations", "tanh, float", {**_LAYER, "activation": "tanh"}),
    "relu": Experiment("mnist", "Activations", "relu, float", {**_LAYER, "activation": "relu"}),
    "identity": Experiment(
        "mnist", "Activations", "identity, float", {**_LAYER, "activation": "identity"}
    ),
    "leaky_relu": Experiment("mnist", "Activations", "leaky_relu, float", _LEAKY),
    "leaky_relu-store_fixed": Experiment(
        "mnist", "Activations", "leaky_relu, store_fixed", {**_LEAKY, "memory": "store_fixed"}
    ),
    "leaky_relu-reversible": Experiment(
        "mnist", "Activations", "leaky_relu, reversible", {**_LEAKY, "memory": "reversible"}
    ),
    "adding-irevrnn": Experiment("adding", "Adding", "IRevRNN", {**_LONG, "epochs": 12}),
    "adding-lstm": Experiment(
        "adding", "Adding", "LSTM", {**_SLOW, "epochs": 40}, like="adding-irevrnn"
    ),
    "copy-irevrnn": Experiment("copy", "Copying", "IRevRNN", _COPY),
    "copy-lstm": Experiment(
        "copy", "Copying", "LSTM", {**_SLOW, "epochs": 40}, like="copy-irevrnn"
    ),
    "sessions-reversible": Experiment(
        "sessions", "Sessions", "reversible", {"activation": "leaky_relu", "memory": "reversible"}
    ),
}

#: What small profiles change, for each task: to show that everything works.
SMALLER: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "mnist": {"downsample": 14, "train_subset": 256, "eval_subset": 100, "epochs": 1,
                  "hidden_size": 8, "num_layers": 1},
        "adding": {"length": 20, "batches": 5, "held_out": 64, "epochs": 2, "hidden_size": 8},
        "copy": {"length": 20, "batches": 5, "held_out": 64, "epochs": 2, "hidden_size": 8},
        "sessions": {"frames": 20, "epochs": 1, "sessions": 1, "hidden_size": 8, "fold": 0},
    },
    "quick": {
        "mnist": {"downsample": 4, "train_subset": 5000, "eval_subset": 1000, "epochs": 2,
                  "hidden_size": 32, "num_layers": 2},
        "adding": {"length": 100, "batches": 60, "held_out": 256, "epochs": 5, "hidden_size": 32},
        "copy": {"length": 100, "batches": 60, "held_out": 256, "epochs": 5, "hidden_size": 32},
        "sessions": {"frames": 90, "epochs": 3, "hidden_size": 16, "fold": 0},
    },
    "paper": {},
}  # fmt: skip


# --- one experiment -----------------------------------------------------------------------------


def config_of(name: str, profile: str = "paper", **operational: Any) -> TrainConfig:
    """The configuration of an experiment.

    Args:
        name: key of :data:`EXPERIMENTS`.
        profile: ``smoke`` and ``quick`` make it smaller.
        operational: fields that no result depends on, such as ``threads``.

    Raises:
        ConfigError: there is no such experiment.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"there is no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    smaller = SMALLER[profile].get(experiment.task, {})
    seeds = {"seeds": experiment.seeds if profile == "paper" else 1}
    given = {**experiment.fields, **smaller, **seeds, **operational}
    config = TASKS[experiment.task].of(**given)
    if experiment.like is None:
        return config
    wanted = config_of(experiment.like, profile, **operational)
    task = _a_task(wanted)
    parameters = count_parameters(make_model(wanted, task))
    return dataclasses.replace(config, hidden_size=nearest_hidden_size(config, task, parameters))


def nearest_hidden_size(config: TrainConfig, task: Task, parameters: int) -> int:
    """The ``hidden_size`` with which the network of ``config`` comes nearest to so many parameters.

    Args:
        config: the network, of any size.
        task: what it is for.
        parameters: how many it should have.
    """

    def count(size: int) -> int:
        return count_parameters(make_model(dataclasses.replace(config, hidden_size=size), task))

    low, high = 1, 2
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return min((low, high), key=lambda size: abs(count(size) - parameters))


def count_parameters(model: nn.Module) -> int:
    """How many numbers of ``model`` are learnt."""
    return sum(parameter.numel() for parameter in model.parameters())


def _a_task(config: TrainConfig) -> Task:
    """The task of the first run: sizes are those of all."""
    return config.runs()[0][1].task(torch.device("cpu"))


def run(
    name: str, profile: str = "paper", *, progress: bool = True, **operational: Any
) -> dict[str, Any] | None:
    """Do the runs of an experiment that are missing, and write its result.

    Args:
        name: key of :data:`EXPERIMENTS`.
        profile: where runs and result go, and how small the experiment is made.
        progress: whether to show a progress bar and a line per epoch.
        operational: fields of the configuration that no result depends on.

    Returns:
        The content of ``results/experiments/<name>.json`` of the profile: what
        :func:`experiments.train.summary.summarise` says of all seeds and folds, with the ``history`` and
        ``git_commit`` of each run, and ``task``, ``group`` and ``label``. None if ``max_minutes``
        ran out; the next call goes on.

    Raises:
        As :func:`experiments.train.loop.train`. ConfigError also if the runs in ``build`` are of another
        configuration.
    """
    config = config_of(
        name, profile, resume=True, checkpoint_every=CHECKPOINT_EVERY,
        out=figures.repository() / f"build/{profile}/experiments/{name}", **operational,
    )  # fmt: skip
    if not train_all(config, progress=progress)["finished"]:
        return None
    files = [config.out / folder / "results.json" for folder, _ in config.runs()]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    experiment = EXPERIMENTS[name]
    summary = summarise(config.identity(), results)
    for short, whole in zip(summary["runs"], results, strict=True):
        short |= {key: whole[key] for key in ("git_commit", "history")}
    summary |= {
        "experiment": name,
        "task": experiment.task,
        "group": experiment.group,
        "label": experiment.label,
        "figure": figure_of(results[0]),
        "profile": profile,
    }
    write_text(result_file(name, profile), json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def result_file(name: str, profile: str = "paper") -> Path:
    """Where the result of an experiment goes; its folder is made."""
    folder = figures.folder(profile) / "results" / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def read_results(profile: str = "paper") -> dict[str, dict[str, Any]]:
    """The results that are there, by name, in the order of :data:`EXPERIMENTS`."""
    files = {name: result_file(name, profile) for name in EXPERIMENTS}
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.is_file()
    }


# --- before it is run ---------------------------------------------------------------------------


def seconds_per_step(config: TrainConfig, steps: int = 3) -> tuple[float, int]:
    """Time some training steps of the first run.

    Returns:
        Seconds of a step, the fastest one; and the steps of all runs together.
    """
    use_caching_allocator()
    runs = config.runs()
    with threads(config.threads):
        first = Run(runs[0][1], progress_bar=False)
        times = []
        for _, (x, y) in zip(range(1 + steps), first.task.train_batches(0, 0), strict=False):
            start = time.perf_counter()
            first.step(x, y)
            times.append(time.perf_counter() - start)
    return min(times), first.total_steps * len(runs)


def _list(names: Sequence[str]) -> None:
    there = read_results()
    for name in names:
        experiment = EXPERIMENTS[name]
        state = "not yet run"
        if name in there:
            figure = f"test_{there[name]['figure']}"
            state = f"{figure} {there[name][figure]['mean']:.4f}"
        fields = ", ".join(f"{key} {value}" for key, value in experiment.fields.items())
        like = f", as many parameters as {experiment.like}" if experiment.like else ""
        print(f"{name}: {experiment.task}, {fields}{like}; seeds {experiment.seeds}; {state}")


def _time(names: Sequence[str], **operational: Any) -> None:
    for name in names:
        seconds, steps = seconds_per_step(config_of(name, **operational))
        minutes = seconds * steps / 60
        print(f"{name}: {seconds:.3f} s a step, {steps:,} steps: {minutes:.0f} minutes", flush=True)


def _run(names: Sequence[str], **operational: Any) -> None:
    deadline = operational.pop("max_minutes", float("inf")) * 60 + time.monotonic()
    for name in names:
        left = max(0.0, (deadline - time.monotonic()) / 60)
        print(f"== {name}", flush=True)
        if run(name, max_minutes=left if left < float("inf") else None, **operational) is None:
            print(f"{name} goes on with the same command")
            return
        print(f"written to {result_file(name)}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; with --list or "
                        "--time all of them, if none is named")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what they are, and stop")
    parser.add_argument("--time", action="store_true", help="time a few steps of each, and stop")
    parser.add_argument("--threads", type=int, default=argparse.SUPPRESS, help="CPU threads")
    parser.add_argument("--max-minutes", type=float, default=argparse.SUPPRESS,
                        help="write a checkpoint and stop after so many minutes")  # fmt: skip
    options = vars(parser.parse_args(argv))
    names, listed, timed = (options.pop(name) for name in ("names", "list", "time"))
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        parser.error(f"there is no experiment {unknown[0]}: choose from {', '.join(EXPERIMENTS)}")
    if not (names or listed or timed):
        parser.error("name the experiments to run (--list says what there is)")
    try:
        if listed:
            _list(names or list(EXPERIMENTS))
        elif timed:
            _time(names or list(EXPERIMENTS), **options)
        else:
            _run(names, **options)
    except KeyboardInterrupt as error:
        print(f"experiments.catalogue: {error}", file=sys.stderr)
        return 130
    except (ConfigError, DataError, ArithmeticError, ReversalError) as error:
        print(f"experiments.catalogue: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
