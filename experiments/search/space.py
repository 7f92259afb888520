"""The methods and tasks of a search, and the one space that settings are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from optuna import create_study
from optuna.logging import WARNING, set_verbosity
from optuna.samplers import RandomSampler

from experiments.catalogue import nearest_size, smaller
from experiments.tasks import TASKS
from experiments.train.config import TrainConfig

set_verbosity(WARNING)  # a study is made for each trial

# Ours takes the fastest strategy: the others differ from it by rounding alone.
_OURS = {"model": "block", "memory": "recompute"}
_TURNS = _OURS | {"turns": "input", "input_gate": True}
#: Every method: what figures call it, and its fixed fields.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fixed-u1": ("fixed angles, u = 1 (ours)", _OURS | {"forgets": False}),
    "turns-u1": ("angles by input, u = 1 (ours)", _TURNS | {"forgets": False}),
    "turns": ("angles and decays by input (ours)", _TURNS | {"forgets": "input"}),
    "lru": ("LRU", {"model": "lru"}),
    "mingru": ("minGRU", {"model": "mingru"}),
    "rglru": ("RG-LRU", {"model": "rglru"}),
    "s6": ("S6, diagonal", {"model": "s6"}),
}


@dataclass(frozen=True)
class Search:
    """A task, the fields in which it differs from its defaults, and the size of all networks."""

    task: str
    fields: Mapping[str, Any]
    parameters: int


#: Every search, by the name of its result file. The number of updates is that of the task.
SEARCHES: dict[str, Search] = {
    "selective-copy": Search(
        "selective-copy",
        {"length": 100, "symbols": 6, "kinds": 10, "batches": 100, "epochs": 10},
        40_000,
    ),
}


def draw(trial: int, length: int) -> dict[str, float]:
    """Return the numbers of a trial, the same for all methods, for sequences of ``length`` steps.

    ``units`` are those of a block for each of its features.
    """
    sampled = create_study(sampler=RandomSampler(trial)).ask()

    def log(name: str, lowest: float, highest: float) -> float:
        return sampled.suggest_float(name, lowest, highest, log=True)

    shortest = log("shortest_period", 2.1, 60.0)
    return {
        "lr": log("lr", 2e-4, 2e-2),
        "weight_decay": log("weight_decay", 1e-3, 0.3),
        "num_layers": sampled.suggest_int("num_layers", 1, 4),
        "units": sampled.suggest_categorical("units", (0.5, 1.0, 2.0)),
        "shortest_memory": log("shortest_memory", 1.0, 10.0),
        "longest_memory": max(12.0, log("longest_memory", length / 4, 4 * length)),
        "shortest_period": shortest,
        "longest_period": max(shortest, log("longest_period", length / 4, 4 * length)),
        "recurrent_lr_scale": log("recurrent_lr_scale", 1e-3, 1.0),
        "coupling_lr_scale": log("coupling_lr_scale", 1e-3, 1.0),
        "gate_lr_scale": log("gate_lr_scale", 1e-3, 1.0),
    }


def settings_of(search: Search, method: str, trial: int, profile: str) -> dict[str, Any]:
    """Return the drawn settings that a method has, with the size that fits the parameters."""
    plain = configure(search, method, {}, profile)
    task = plain.task(torch.device("cpu"))
    drawn = draw(trial, task.facts["sequence_length"])
    units = drawn.pop("units")
    known = plain.names() | plain.model.names()
    settings = {name: value for name, value in drawn.items() if name in known}

    def sized(width: int) -> dict[str, Any]:
        return settings | {"width": width, "hidden_size": max(1, round(units * width))}

    def configured(width: int) -> TrainConfig:
        return configure(search, method, sized(width), profile)

    return sized(nearest_size(configured, task, search.parameters))


def configure(
    search: Search, method: str, settings: Mapping[str, Any], profile: str, **fields: Any
) -> TrainConfig:
    """Return the configuration of a trial, which never tests."""
    _, fixed = METHODS[method]
    given = {**search.fields, **smaller(search.task, profile), **fixed, **settings, **fields}
    return TASKS[search.task].of(**given, keep="last", test=False)
