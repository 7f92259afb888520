"""One trial: its configuration, its schedule and its training.

A schedule that is cut off in its middle says little of a setting. So each trial is timed for a few
steps before it starts, and its schedule is made as long as its time allows: the steps are divided
into epochs of equal length, each a random part of the data where not all of it fits
(``epoch_steps``). Whole epochs would leave the time of up to one of them unused, which would cost
slow methods most. The machine should do little else: a busy one takes more processor time for the
same step at one moment than at another. What each trial took is recorded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, islice
from typing import Any

import torch

from experiments.catalogue import nearest_size, smaller
from experiments.process import threads
from experiments.provenance import provenance
from experiments.search.space import METHODS, Search, draw
from experiments.tasks import TASKS
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.evaluate import evaluate
from experiments.train.loop import train
from experiments.train.run import Run
from experiments.train.runs import figure_of
from experiments.train.task import Batch, Task
from irevrnn import ReversalError
from irevrnn.kernels.allocator import use_caching_allocator

#: Steps by which a trial is timed, after a first one that is not counted.
TIMED_STEPS = 10


def configure(
    search: Search, method: str, settings: Mapping[str, Any], profile: str, **fields: Any
) -> TrainConfig:
    """Return the configuration with these settings, but for the length of its schedule."""
    fixed = {**search.fields, **smaller(search.task, profile), **METHODS[method].fields}
    fixed |= {"keep": "last", "test": False}
    return TASKS[search.task].of(**{**fixed, **settings, **fields})


def choose_settings(search: Search, method: str, trial: int, profile: str) -> dict[str, Any]:
    """Draw the settings of a trial, with the size that has the search's number of parameters."""
    task = configure(search, method, {}, profile).task(torch.device("cpu"))
    settings = draw(search, method, trial, task.facts["sequence_length"])
    units = settings.pop("units", None)
    if task.read_at is not None:
        settings["read"] = "last"

    def sized(size: int) -> dict[str, Any]:
        if units is None:
            return settings | {"hidden_size": size}
        return settings | {"hidden_size": max(1, round(units * size)), "width": size}

    def configured(size: int) -> TrainConfig:
        return configure(search, method, sized(size), profile)

    return sized(nearest_size(configured, task, search.parameters))


def fit_schedule(
    seconds: float, step: float, validation: float, steps_per_epoch: int
) -> tuple[int, int]:
    """Return the number of epochs, and of steps in each, that take ``seconds`` of training.

    These are whole epochs, or one more of shorter ones: what has more steps.

    Args:
        seconds: to spend.
        step: seconds of a training step.
        validation: seconds of a validation, after each epoch.
        steps_per_epoch: steps of an epoch on all of the data.

    Raises:
        ConfigError: the time is too short for a step.
    """
    whole = int(seconds / (steps_per_epoch * step + validation))
    shorter = int((seconds / (whole + 1) - validation) / step)
    epochs, steps = max((whole, steps_per_epoch), (whole + 1, shorter), key=math.prod)
    if epochs * steps < 1:
        raise ConfigError(
            f"minutes must be enough for a step and a validation, {(step + validation) / 60:.3g}; "
            f"got {seconds / 60:.3g}"
        )
    return epochs, steps


def timed(config: TrainConfig) -> tuple[float, float, int]:
    """Return the processor seconds of a step and of a validation, and the steps of an epoch."""
    use_caching_allocator()
    with threads(config.threads):
        run = Run(replace(config, schedule="cosine", lr=0.0))  # cosine goes on after its end
        if run.task.val_batches is None:
            raise ConfigError("a search needs validation data, but the task has none")
        batches = _batches(run.task)
        run.step(*next(batches))
        start = time.process_time()
        for x, y in islice(batches, TIMED_STEPS):
            run.step(x, y)
        middle = time.process_time()
        evaluate(run.evaluated, run.task.val_batches(), run.task.objective)
        step, validation = (middle - start) / TIMED_STEPS, time.process_time() - middle
        return step, validation, run.task.steps_per_epoch


def _batches(task: Task) -> Iterator[Batch]:
    for epoch in count():
        yield from task.train_batches(epoch, 0)


def run_trial(config: TrainConfig, minutes: float) -> dict[str, Any]:
    """Train for a processor time, and return what the result records of it.

    A trial whose numbers become infinite has an ``error``, and no figure.
    """
    step, validation, all_steps = timed(config)
    epochs, steps = fit_schedule(60 * minutes, step, validation, all_steps)
    planned = {
        "epochs": epochs, "epoch_steps": steps, "steps": epochs * steps, "seconds_per_step": step,
    }  # fmt: skip
    started = time.process_time()
    try:
        result = train(replace(config, epochs=epochs, epoch_steps=steps), progress=False)
    except (ArithmeticError, ReversalError) as error:
        seconds = time.process_time() - started
        return {**planned, "error": str(error), "processor_seconds": seconds, **provenance()}
    kept = (
        f"val_{figure_of(result)}", "num_parameters", "processor_seconds", "wall_seconds",
    )  # fmt: skip
    return {**planned, **{key: result[key] for key in kept}, **provenance()}
