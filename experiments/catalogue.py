"""The experiments of the paper, each by one command: ``python -m experiments NAME``.

Each is an entry of :data:`EXPERIMENTS`: a task, the fields that differ from its defaults, and the
number of seeds. The command does the runs that are missing, resumes one that was stopped or killed,
and writes ``paper/results/experiments/NAME.json``. The runs stay in
``build/paper/experiments/NAME``: delete them to start again.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments import folders, weights
from experiments.files import write_text
from experiments.provenance import require_clean
from experiments.tasks import TASKS
from experiments.tasks.synthetic import SyntheticConfig
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.model import count_parameters
from experiments.train.peak import peak_bytes
from experiments.train.runs import commits_of, figure_of, summarise, train_all
from experiments.train.task import Task

#: Steps between checkpoints: at most these are lost when a run is killed.
CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Experiment:
    """One line of a table or figure."""

    task: str  # key of TASKS
    group: str  # the panel of the figure, or the part of the table
    label: str  # name of the experiment there
    fields: Mapping[str, Any]  # of the configuration, where they differ from the task's defaults
    seeds: int = 1  # number of runs (of each fold), from seed 0 on
    like: str | None = None  # an experiment whose number of parameters hidden_size has to match
    peak: bool = False  # whether the result has the peak memory of a training step


_mnist = partial(Experiment, "mnist")
# Fields that the experiments of a group share.
# Comparisons use digits of 14 by 14 pixels: many runs of minutes.
_BLOCK_TRAINING = {
    "downsample": 2, "batch_size": 100, "epochs": 4, "lr": 8e-3, "weight_decay": 0.03,
}  # fmt: skip
_BLOCK = _BLOCK_TRAINING | {"model": "block", "memory": "reversible", "longest_period": 600}
_SMALL_BLOCK = _BLOCK | {"width": 32, "hidden_size": 32, "num_layers": 3}
# All 784 pixels.
_LONG_BLOCK = _BLOCK | {
    "downsample": 1, "batch_size": 64, "epochs": 16, "lr": 6e-3, "longest_period": 2000,
}  # fmt: skip
# Permuted pixels have no slow parts. Many units that turn fast make their last states projections
# of the whole image; their phases move by hundreds of times the change of a coupling.
_PERMUTED = _LONG_BLOCK | {
    "permuted": True, "hidden_size": 256, "num_layers": 2, "dropout": 0.1, "read": "last",
    "forgets": False, "shortest_period": 2.1, "longest_period": 20, "longest_memory": 800,
    "coupling_lr_scale": 1e-3, "lr": 4e-3, "epochs": 6,
}  # fmt: skip
# The best of eight settings at 14 by 14 permuted pixels; memories are four times as long here.
_PERMUTED_PEER = {
    "permuted": True, "batch_size": 64, "epochs": 12, "num_layers": 1, "width": 100, "dropout": 0.1,
    "read": "last", "lr": 2.1e-3, "weight_decay": 0.23,
}  # fmt: skip
# One change at a time: what a line is called, and its fields.
_ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "uncoupled": ("R = 0, as many states",
        {"num_couplings": 0, "hidden_size": 64, "longest_period": None}),
    "frozen": ("recurrence as it starts", {"recurrent_lr_scale": 0.0, "coupling_lr_scale": 0.0}),
    "tanh": ("f = tanh", {"coupling_activation": "tanh"}),
    "leaky": ("g = leaky_relu", {"activation": "leaky_relu"}),
    "ungated": ("no gate", {"gate": False}),
    "unnormed": ("no norm", {"norm": "none"}),
}  # fmt: skip
# Many small ones, for the curve of accuracy against the bits that may be forgotten.
_BITS = _SMALL_BLOCK | {"epochs": 2}
# A block that forgets nothing remembers as long as it is asked to, and its reversal stores nothing.
_KEEPS = {
    "model": "block", "memory": "reversible", "forgets": False, "num_layers": 1, "read": "last",
}  # fmt: skip
_ADDS = _KEEPS | {
    "num_couplings": 0, "longest_period": None, "width": 32, "sparsity": 1.0, "lr": 1e-2,
    "schedule": "cosine", "keep": "last",
}  # fmt: skip
_ADDING = _ADDS | {
    "length": 5000, "hidden_size": 52, "longest_memory": 100, "batch_size": 64, "batches": 100,
    "epochs": 8,
}  # fmt: skip
# It learns on sequences of 10 steps in five epochs, then of 17, 51, 153, ..., up to a million.
_MILLION = _ADDS | {
    "length": 1_000_000, "growth": 3, "epochs": 16, "batches": 100, "batch_size": 2, "held_out": 50,
    "longest_memory": 10, "hidden_size": 16,
}  # fmt: skip
# Ten symbols a step apart are told apart by the phases of units that turn fast. In 5,000 steps a
# phase moves by thousands of times the change of a coupling: couplings are learnt slowly.
_COPY = _KEEPS | {
    "length": 5000, "width": 16, "hidden_size": 58, "shortest_period": 2.5, "longest_period": 20,
    "longest_memory": 1e5, "coupling_lr_scale": 1e-3, "batch_size": 64, "batches": 50, "lr": 3e-2,
    "epochs": 12,
}  # fmt: skip
# In twenty times as many steps, a phase moves twenty times as far.
_LONG_COPY = _COPY | {
    "length": 100_000, "batch_size": 8, "held_out": 200, "coupling_lr_scale": 5e-5,
}  # fmt: skip
# Ten times as many again, in smaller batches.
_MILLION_COPY = _LONG_COPY | {
    "length": 1_000_000, "batch_size": 4, "batches": 150, "epochs": 6, "held_out": 100,
    "coupling_lr_scale": 5e-6,
}  # fmt: skip
# Six of ten symbols among a hundred steps, then the same with what may turn and forget; and the
# sixteen symbols of Gu and Dao (2023), which begin close to one another.
_SELECT = {
    "model": "block", "memory": "reversible", "length": 100, "symbols": 6, "kinds": 10,
    "num_layers": 2, "forgets": False, "longest_memory": 100, "lr": 6e-3, "batches": 100,
    "epochs": 20, "gate_lr_scale": 1.0,
}  # fmt: skip
_TURNS = {"turns": "input", "input_gate": True}
# Ends of names and labels, and the weight of a bit in the loss.
_PRICES = (("", "", 0), ("-1", ", penalty of 1 a bit", 1), ("-10", ", penalty of 10 a bit", 10))
_SELECT_LONG = _SELECT | _TURNS | {
    "length": 4096, "symbols": 16, "kinds": 14, "hidden_size": 128, "width": 128,
    "batch_size": 16, "longest_memory": 1000, "growth": 1.25, "epochs": 34, "full_epochs": 6,
    "lr": 5e-3, "held_out": 200,
}  # fmt: skip
_RECALL = {
    "model": "block", "memory": "reversible", "num_layers": 2, "width": 64, "hidden_size": 128,
    "forgets": False, "longest_memory": 64, "lr": 5e-3, "batches": 100, "epochs": 20,
    "gate_lr_scale": 1.0,
}  # fmt: skip
# What does not stand still on a blank shows at each new length, and is unlearnt at the last.
_SELECT_FAR = _SELECT | _TURNS | {
    "length": 100_000, "longest_memory": 1000, "norm_first": True, "batch_size": 2, "batches": 50,
    "growth": 1.4, "epochs": 40, "full_epochs": 8, "held_out": 40,
}  # fmt: skip
# One block that only turns, from a state of its own; a few fast units can count.
_COUNT = {
    "model": "block", "num_layers": 1, "width": 32, "hidden_size": 32, "gate": False,
    "norm_first": True, "forgets": False, "learn_initial_state": True, "shortest_period": 2.5,
    "longest_period": 8, "longest_memory": 64, "coupling_lr_scale": 0.3, "gate_lr_scale": 1.0,
    "lr": 1e-2, "weight_decay": 0.1, "epsilon": 1e-6, "label_smoothing": 0.1, "test_length": 256,
    "growth": 1.15, "batch_size": 64, "epochs": 40, "full_epochs": 15,
}  # fmt: skip
# An angle must be the more exact, the longer the sequence: its gates learn faster than the rest.
_COUNT_FAR = _COUNT | _TURNS | {
    "length": 10_000, "test_length": None, "growth": 1.1, "batch_size": 4, "epochs": 95,
    "full_epochs": 5, "schedule": "by-length", "lr": 5e-3, "gate_lr_scale": 2.0,
    "weight_decay": 0.0, "held_out": 64, "settings_tried": 12,
}  # fmt: skip
# No fewer parameters than our networks for the same data.
_RESNET = {"model": "resnet", "num_layers": 7, "hidden_size": 13}

#: Every experiment, by the name of its result file. ``block-lru`` and convolutional networks train
#: for as many epochs as the networks that they are compared with, the others on permuted pixels for
#: twice as many.
EXPERIMENTS: dict[str, Experiment] = {
    "block": _mnist("Blocks", "reversible", _BLOCK, 3),
    "block-conserving": _mnist("Blocks", "reversible, u = 1",
        _BLOCK | {"forgets": False, "longest_memory": 200}, 3),
    "block-small": _mnist("Blocks", "reversible, three small", _SMALL_BLOCK, 5),
    # What the input chooses: angles, at no bits, or decays, at a price.
    "block-angles": _mnist("Blocks", "reversible, angles by input, u = 1",
        _BLOCK | _TURNS | {"forgets": False, "longest_memory": 200}, 3),
    "block-decays": _mnist("Blocks", "reversible, decays by input, penalty of 0.5 a bit",
        _BLOCK | {"forgets": "input", "bits_penalty": 0.5, "settings_tried": 2}, 3),
    # Controls: the blocks in floating point, and around recurrences that cannot be reversed or that
    # others use.
    "block-float": _mnist("Blocks", "in floating point", _BLOCK | {"memory": "recompute"}, 3),
    "block-tanh": _mnist("Blocks", "g = tanh, not reversible",
        _BLOCK | {"memory": "recompute", "activation": "tanh"}, 3),
    # With about as many units as features, as in ``block``; its states are complex.
    "block-lru": _mnist("Blocks", "LRU",
        _BLOCK_TRAINING | {"model": "lru", "width": 46}, 3, "block"),
    **{
        f"block-small-{name}": _mnist("Small blocks", label, _SMALL_BLOCK | fields, 5)
        for name, (label, fields) in _ABLATIONS.items()
    },
    "smnist-block": _mnist("784 pixels", "sequential, reversible blocks", _LONG_BLOCK, 3),
    "smnist-block-conserving": _mnist("784 pixels", "sequential, reversible, u = 1",
        _LONG_BLOCK | {"forgets": False, "longest_memory": 800}),
    "pmnist-block": _mnist("784 pixels", "permuted, reversible blocks",
        _LONG_BLOCK | {"permuted": True}),
    "pmnist-block-conserving": _mnist("784 pixels", "permuted, reversible, u = 1", _PERMUTED, 3),
    # A control: the same units, but they forget.
    "pmnist-block-forgetting": _mnist("784 pixels", "permuted, reversible, forgetting",
        _PERMUTED | {"forgets": True, "longest_memory": 1e4}, 3),
    "pmnist-linoss": _mnist("784 pixels", "permuted, LinOSS",
        _PERMUTED_PEER | {"model": "linoss", "recurrent_lr_scale": 0.039}, 3,
        "pmnist-block-conserving"),
    "pmnist-lru": _mnist("784 pixels", "permuted, LRU",
        _PERMUTED_PEER | {"model": "lru", "recurrent_lr_scale": 0.082,
            "shortest_period": 11, "longest_memory": 611, "shortest_memory": 72}, 3,
        "pmnist-block-conserving"),
    "bits-0": _mnist("Bits", "u = 1", _BITS | {"forgets": False, "longest_memory": 200}, 3),
    "bits-memory-1000": _mnist("Bits", "memories up to 1,000", _BITS, 3),
    **{
        f"bits-memory-{steps}": _mnist("Bits", f"memories up to {steps}",
            _BITS | {"longest_memory": steps}, 3)
        for steps in (50, 10, 3)
    },
    **{
        f"bits-penalty-{weight}": _mnist("Bits", f"penalty of {weight} a bit",
            _BITS | {"bits_penalty": weight}, 3)
        for weight in (1, 10)
    },
    "bits-angles": _mnist("Bits", "angles by input, u = 1",
        _BITS | {"turns": "input", "forgets": False, "longest_memory": 200}, 3),
    **{
        f"bits-decays{end}": _mnist("Bits", "decays by input" + more,
            _BITS | {"forgets": "input", "bits_penalty": price}, 3)
        for end, more, price in _PRICES
    },
    "adding-irevrnn": Experiment("adding", "Adding", "reversible block, u = 1", _ADDING, 3),
    "copy-irevrnn": Experiment("copy", "Copying", "reversible block, u = 1", _COPY, 3),
    "copy-long": Experiment("copy", "Long copying", "reversible block, u = 1", _LONG_COPY, 3,
        peak=True),
    # A control: gradients go back through the last 10,000 steps alone, and reach no symbol.
    "copy-long-truncated": Experiment("copy", "Long copying", "with truncated gradients",
        _LONG_COPY | {"gradient_steps": 10_000}, 3),
    # Another: no gradient needs the states.
    "copy-long-frozen": Experiment("copy", "Long copying", "with frozen couplings",
        _LONG_COPY | {"coupling_lr_scale": 0.0}, 3),
    "copy-million": Experiment("copy", "A million steps", "copying, u = 1", _MILLION_COPY,
        peak=True),
    "adding-million": Experiment("adding", "A million steps", "adding, u = 1", _MILLION, 3,
        peak=True),
    "select": Experiment("selective-copy", "Selective copying", "angles by input, u = 1",
        _SELECT | _TURNS, 3),
    "select-fixed": Experiment("selective-copy", "Selective copying", "fixed angles, u = 1",
        _SELECT, 3),
    # Which of the two choices does it?
    "select-gate": Experiment("selective-copy", "Selective copying",
        "fixed angles, gate by input, u = 1", _SELECT | {"input_gate": True}, 3),
    "select-angles": Experiment("selective-copy", "Selective copying",
        "angles by input, no gate, u = 1", _SELECT | {"turns": "input"}, 3),
    "select-fixed-forgets": Experiment("selective-copy", "Selective copying",
        "fixed angles, learnt decays", _SELECT | {"forgets": True}, 3),
    **{
        f"{name}{end}": Experiment("selective-copy", "Selective copying", label + more,
            _SELECT | fields | {"forgets": "input", "bits_penalty": price}, 3)
        for name, label, fields in (
            ("select-decays", "decays by input", {"input_gate": True}),
            ("select-both", "angles and decays by input", _TURNS),
        )
        for end, more, price in _PRICES
    },
    "select-long": Experiment("selective-copy", "Selective copying, 4,096 steps",
        "angles by input, u = 1", _SELECT_LONG, 2),
    "recall": Experiment("recall", "Associative recall", "angles by input, u = 1",
        _TURNS | _RECALL),
    "select-far": Experiment("selective-copy", "Selective copying, 100,000 steps",
        "angles by input, u = 1", _SELECT_FAR, peak=True),
    # A control, through the last tenth alone. Its states leave the range of fixed point.
    "select-far-truncated": Experiment("selective-copy", "Selective copying, 100,000 steps",
        "with truncated gradients", _SELECT_FAR | {"gradient_steps": 0.1, "memory": "recompute"}),
    # Another: no gradient needs the states.
    "select-far-frozen": Experiment("selective-copy", "Selective copying, 100,000 steps",
        "with frozen angles", _SELECT_FAR | {"turns": "fixed", "coupling_lr_scale": 0.0}),
    "select-million": Experiment("selective-copy", "Selective copying, a million steps",
        "trained on 100,000 steps", _SELECT_FAR | {"test_length": 1_000_000, "held_out": 8}),
    **{
        f"count-{n}": Experiment("counting", "Counting", f"modulo {n}, angles by input, u = 1",
            _COUNT | _TURNS | {"modulus": n}, 3)
        for n in (2, 3, 5)
    },
    **{
        f"count-{n}-far": Experiment("counting", "Counting, 10,000 steps",
            f"modulo {n}, angles by input, u = 1", _COUNT_FAR | {"modulus": n}, 3 if n == 3 else 1)
        for n in (2, 3, 5)
    },
    # What one step may err by adds up over a hundred times the longest training sequence.
    "count-3-million": Experiment("counting", "Counting, a million steps",
        "modulo 3, trained on 10,000 steps", _COUNT_FAR | {"modulus": 3, "test_length": 1_000_000,
            "held_out": 8}),
    "count-2-fixed": Experiment("counting", "Counting", "modulo 2, fixed angles, u = 1", _COUNT, 3),
    "count-3-zeros": Experiment("counting", "Counting", "modulo 3, angles by input, from zeros",
        _COUNT | _TURNS | {"modulus": 3, "learn_initial_state": False}, 3),
    "sessions-reversible": Experiment("sessions", "Sessions", "reversible",
        {"activation": "leaky_relu", "memory": "reversible"}, 3),
    "ecg": Experiment("signals", "Signals", "ECG, whole recordings", {"data_set": "cinc2017"}),
    "digits": Experiment("signals", "Signals", "spoken digits", {"data_set": "fsdd"}, 3),
    # Convolutions with seven strides of two: features every 128 steps, each of some 3,000.
    "ecg-resnet": Experiment("signals", "Signals", "ECG, ResNet",
        {"data_set": "cinc2017"} | _RESNET),
    "digits-resnet": Experiment("signals", "Signals", "spoken digits, ResNet",
        {"data_set": "fsdd"} | _RESNET, 3),
    "digits-conserving": Experiment("signals", "Signals", "spoken digits, u = 1",
        {"data_set": "fsdd", "forgets": False, "longest_memory": 200, "settings_tried": 3}, 3),
    "digits-angles": Experiment("signals", "Signals", "spoken digits, angles by input, u = 1",
        {"data_set": "fsdd", "forgets": False, "longest_memory": 200, "gate_lr_scale": 0.03,
            "settings_tried": 2} | _TURNS),
    "digits-decays": Experiment("signals", "Signals",
        "spoken digits, decays by input, penalty of 0.5 a bit",
        {"data_set": "fsdd", "forgets": "input", "bits_penalty": 0.5}, 2),
    "digits-price": Experiment("signals", "Signals", "spoken digits, penalty of 1 a bit",
        {"data_set": "fsdd", "bits_penalty": 1.0, "norm_last": True, "dropout": 0.1,
            "settings_tried": 2}, 3),
    # A control: the same without the price.
    "digits-normed": Experiment("signals", "Signals", "spoken digits, norm and dropout",
        {"data_set": "fsdd", "norm_last": True, "dropout": 0.1}, 3),
    "ecg-conserving": Experiment("signals", "Signals", "ECG, u = 1, first fold",
        {"data_set": "cinc2017", "forgets": False, "norm_last": True, "fold": 0}),
    "ecg-price": Experiment("signals", "Signals", "ECG, penalty of 1 a bit",
        {"data_set": "cinc2017", "bits_penalty": 1.0, "norm_last": True, "settings_tried": 2}),
    "digits-speakers": Experiment("signals", "Signals", "spoken digits, unseen speakers",
        {"data_set": "fsdd", "split": "speaker"}),
    "shakespeare": Experiment("shakespeare", "Text", "Tiny Shakespeare, reversible", {}),
    "reviews": Experiment("reviews", "Text", "reviews byte by byte, reversible",
        {"settings_tried": 4}, 3),
    "listops": Experiment("listops", "Text", "ListOps, reversible", {"settings_tried": 13}),
}  # fmt: skip

#: The experiments whose weights are kept, for :mod:`experiments.evaluate`.
FLAGSHIPS = (
    "block", "block-conserving", "smnist-block", "pmnist-block", "pmnist-block-conserving", "ecg",
    "digits", "shakespeare",
)  # fmt: skip

#: Fields that the profiles smoke and quick change, for each task whose data are always there.
SMALLER: dict[str, dict[str, Any]] = {
    "mnist": {"downsample": 14, "train_subset": 256, "eval_subset": 100, "epochs": 1,
              "hidden_size": 8, "num_layers": 1},
    "adding": {"length": 20, "batches": 5, "held_out": 64, "epochs": 2, "hidden_size": 8},
    "copy": {"length": 20, "batches": 5, "held_out": 64, "epochs": 2, "hidden_size": 8},
    "selective-copy": {"length": 20, "symbols": 3, "batches": 5, "held_out": 64, "epochs": 2,
                       "hidden_size": 8, "width": 8},
    "counting": {"length": 10, "batches": 5, "held_out": 64, "epochs": 2, "hidden_size": 8},
    "sessions": {"frames": 20, "epochs": 1, "sessions": 1, "hidden_size": 8, "fold": 0},
}  # fmt: skip


def smaller(task: str, profile: str) -> dict[str, Any]:
    """Return the fields that a profile changes."""
    return {} if profile == "paper" else SMALLER.get(task, {})


def config_of(name: str, profile: str = "paper", **operational: Any) -> TrainConfig:
    """Return the configuration of an experiment; ConfigError if there is no such experiment.

    ``operational`` are fields that no result depends on, such as ``threads``.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"there is no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    seeds = {"seeds": experiment.seeds if profile == "paper" else 1}
    given = {**experiment.fields, **smaller(experiment.task, profile), **seeds, **operational}
    config = TASKS[experiment.task].of(**given)
    if experiment.like is None:
        return config
    wanted = config_of(experiment.like, profile, **operational)
    task = wanted.runs()[0][1].task(torch.device("cpu"))  # of any run: all have the same sizes
    parameters = count_parameters(wanted.model.build(task))
    nearest = nearest_size(lambda size: config.changed(hidden_size=size), task, parameters)
    return config.changed(hidden_size=nearest)


def nearest_size(sized: Callable[[int], TrainConfig], task: Task, parameters: int) -> int:
    """Return the size whose configuration comes nearest to a number of parameters."""

    def count(size: int) -> int:
        return count_parameters(sized(size).model.build(task))

    bound = 2
    while count(bound) < parameters:
        bound *= 2
    enough = max(2, bisect_left(range(bound), parameters, lo=bound // 2, key=count))
    return min((enough - 1, enough), key=lambda size: abs(count(size) - parameters))


def run(
    name: str, profile: str = "paper", *, progress: bool = True, **operational: Any
) -> dict[str, Any] | None:
    """Do the missing runs of an experiment, and write its result.

    ``operational`` are fields that no result depends on. Errors are those of
    :func:`experiments.train.loop.train`, and UncommittedChangesError if a result for ``paper/``
    would be made from uncommitted code.

    Returns:
        The content of ``results/experiments/<name>.json`` of the profile: the summary of all seeds
        and folds (:func:`experiments.train.runs.summarise`), with history and commits of each run.
        None if ``max_minutes`` ran out; the next call continues.
    """
    require_clean(folders.folder(profile))
    config = config_of(
        name, profile, resume=profile == "paper", checkpoint_every=CHECKPOINT_EVERY,
        out=folders.repository() / f"build/{profile}/experiments/{name}", **operational,
    )  # fmt: skip
    if not train_all(config, progress=progress)["finished"]:
        return None
    files = [config.out / folder / "results.json" for folder, _ in config.runs()]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    experiment = EXPERIMENTS[name]
    summary = summarise(config.identity(), results)
    for short, full in zip(summary["runs"], results, strict=True):
        short |= {key: full[key] for key in ("git_commit", "history")}
        short["git_commits"] = commits_of(full)
    summary |= {"experiment": name, "task": experiment.task, "group": experiment.group}
    summary |= {"label": experiment.label, "figure": figure_of(results[0]), "profile": profile}
    if experiment.peak:
        of_one = config.runs()[0][1]
        assert isinstance(of_one, SyntheticConfig)
        summary["peak_bytes"] = peak_bytes(of_one)
    write_text(result_file(name, profile), json.dumps(summary, indent=1, allow_nan=False) + "\n")
    if profile == "paper" and name in FLAGSHIPS:
        weights.save(name, config)
    return summary


def result_file(name: str, profile: str = "paper") -> Path:
    """Return the file for the result of an experiment, and make its folder."""
    return folders.subfolder(profile, "results/experiments") / f"{name}.json"


def read_results() -> dict[str, dict[str, Any]]:
    """Return the committed results, by name, in the order of :data:`EXPERIMENTS`."""
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name in EXPERIMENTS
        if (file := result_file(name)).is_file()
    }
