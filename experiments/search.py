"""Search settings for every method alike: ``python -m experiments.search mnist lstm lru``.

Every method gets the same number of random trials, and every trial about the same number of
parameters and the same processor time. Trials are judged on the validation data, by the weights at
the end of the schedule; the test data is never read. The spaces are :data:`COMMON` and
:data:`METHODS`. Trial i draws the common settings of all methods by the same random numbers, so
that no method has more luck with them.

A schedule that is cut off in its middle says little of a setting. So each trial is timed for a few
steps before it starts, and its schedule is made as long as its time allows: the steps are divided
into epochs of equal length, each a random part of the data where not all of it fits
(``epoch_steps``). Whole epochs would leave the time of up to one of them unused, which would cost
slow methods most. The machine should do little else: a busy one takes more processor time for the
same step at one moment than at another. What each trial took is recorded.

The result is ``paper/results/search/SEARCH.json``, with every trial. Those that are in it are not
repeated; one that was stopped starts again.
"""

from __future__ import annotations

import json
import math
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice, product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from filelock import FileLock

from experiments import figures
from experiments.catalogue import nearest_size, smaller
from experiments.command_line import refuse, report_errors
from experiments.figures.output import PROFILES
from experiments.files import write_text
from experiments.process import threads
from experiments.provenance import provenance, require_clean
from experiments.tasks import TASKS
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.evaluate import evaluate
from experiments.train.loop import format_figure, train
from experiments.train.objectives import Regression
from experiments.train.run import Run
from experiments.train.runs import figure_of
from experiments.train.task import Batch, Task
from irevrnn import ReversalError
from irevrnn.allocator import use_caching_allocator

PROGRAM = "python -m experiments.search"
#: Steps by which a trial is timed, after a first one that is not counted.
TIMED_STEPS = 10


# --- the space ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogUniform:
    """Numbers from ``lowest`` to ``highest``, log-uniform.

    ``of_length`` counts both in lengths of the sequences; no number is below ``least``.
    """

    lowest: float
    highest: float
    of_length: bool = False
    least: float = 0.0

    def at(self, share: float, length: int) -> float:
        """Return the number at ``share``, in [0, 1), of the range."""
        number = self.lowest * (self.highest / self.lowest) ** share
        return max(self.least, number * length if self.of_length else number)


@dataclass(frozen=True)
class Choice:
    """One of ``values``, all equally likely; a range among them is drawn from in turn."""

    values: tuple[Any, ...]

    def at(self, share: float, length: int) -> Any:
        """Return the value at ``share``, in [0, 1)."""
        index, rest = divmod(share * len(self.values), 1)
        value = self.values[int(index)]
        return value.at(rest, length) if isinstance(value, LogUniform) else value


Range = LogUniform | Choice

#: Longest memories, periods and dependencies. All methods know as much of the length of sequences.
_LONGEST = LogUniform(0.25, 4.0, of_length=True, least=6.0)
_CHRONO = Choice((None, _LONGEST))
_RECURRENT_RATE = LogUniform(0.03, 1.0)
#: Units for each feature between gated blocks. ``width`` follows from the number of parameters.
_UNITS = Choice((0.5, 1.0, 2.0))

#: The settings of every method.
COMMON: dict[str, Range] = {
    "lr": LogUniform(1e-3, 2e-2),
    "weight_decay": LogUniform(1e-3, 0.3),
    "num_layers": Choice((1, 2, 3, 4)),
    "read": Choice(("mean", "last")),
}


@dataclass(frozen=True)
class Method:
    """A network: its fixed fields, and ranges of its own, which may replace common ones."""

    fields: Mapping[str, Any]
    ranges: Mapping[str, Range]


_OURS = {"model": "irevrnn", "block": True, "memory": "recompute"}
_OSCILLATORS: dict[str, Range] = {
    "units": _UNITS, "longest_memory": _LONGEST, "longest_period": _LONGEST,
    "recurrent_lr_scale": _RECURRENT_RATE,
}  # fmt: skip
#: Every method. How memory is saved changes no gradient: ours takes the fastest strategy.
METHODS: dict[str, Method] = {
    "irevrnn": Method(_OURS, _OSCILLATORS),
    "irevrnn-u1": Method(_OURS | {"forgets": False}, _OSCILLATORS),
    "lstm": Method({"model": "lstm"}, {"chrono": _CHRONO}),
    "gru": Method({"model": "gru"}, {"chrono": _CHRONO}),
    "indrnn": Method({"model": "indrnn"}, {
        "longest_memory": _LONGEST, "norm": Choice(("batch", "layer")),
        "recurrent_lr_scale": _RECURRENT_RATE,
    }),
    "lru": Method({"model": "lru"}, {
        "units": _UNITS, "longest_memory": _LONGEST, "recurrent_lr_scale": _RECURRENT_RATE,
        "shortest_memory": LogUniform(0.003, 0.1, of_length=True),
        "shortest_period": LogUniform(2.0, 60.0),
    }),
    "mingru": Method({"model": "mingru"}, {"units": _UNITS, "chrono": _CHRONO}),
    # The authors' settings lie within, and so does stability; they stack no layers.
    "cornn": Method({"model": "cornn"}, {
        "num_layers": Choice((1, 2)), "time_step": LogUniform(0.01, 0.1),
        "stiffness": LogUniform(0.3, 100.0), "damping": LogUniform(1.0, 15.0),
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A task with the fields in which it differs from its defaults, and a size of networks."""

    task: str
    fields: Mapping[str, Any]
    parameters: int


#: Every search, by the name of its result file. Of several folds the first one is searched.
SEARCHES: dict[str, Search] = {
    "mnist": Search("mnist", {"downsample": 2, "batch_size": 100}, 30_000),
    "smnist": Search("mnist", {}, 50_000),
    "pmnist": Search("mnist", {"permuted": True}, 50_000),
    "digits": Search("signals", {"data_set": "fsdd"}, 20_000),
    "ecg": Search("signals", {"data_set": "cinc2017"}, 20_000),
    "adding": Search("adding", {}, 10_000),
    "copy": Search("copy", {}, 10_000),
}


def draw(name: str, trial: int, length: int) -> dict[str, Any]:
    """Return the settings of a trial, by name, for sequences of ``length`` steps."""
    ranges = {**COMMON, **METHODS[name].ranges}
    seed = trial, zlib.crc32(name.encode())
    common, own = np.random.default_rng(trial), np.random.default_rng(seed)
    shares = {key: common.random() for key in COMMON} | {
        key: own.random() for key in ranges if key not in COMMON
    }
    return {key: one.at(shares[key], length) for key, one in ranges.items()}


# --- one trial ----------------------------------------------------------------------------------


def configure(search: Search, name: str, trial: int, profile: str, **fields: Any) -> TrainConfig:
    """Return the configuration of a trial, but for the length of its schedule."""
    method, kind = METHODS[name], TASKS[search.task]
    fixed = {**search.fields, **smaller(search.task, profile), **method.fields, **fields}
    fixed |= {"seed": trial, "keep": "last", "test": False}
    task = kind.of(**fixed).runs()[0][1].task(torch.device("cpu"))
    settings = draw(name, trial, task.facts["sequence_length"])
    units = settings.pop("units", None)
    if task.read_at is not None:
        settings["read"] = "last"
    config = kind.of(**{**fixed, **settings}).runs()[0][1]

    def sized(size: int) -> TrainConfig:
        if units is None:
            return replace(config, hidden_size=size)
        return replace(config, width=size, hidden_size=max(1, round(units * size)))

    return sized(nearest_size(sized, task, search.parameters))


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
        run = Run(replace(config, schedule="constant", lr=0.0))  # of any length
        if run.task.val_batches is None:
            raise ConfigError("a search needs validation data, which the task has not")
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
    planned = {"epochs": epochs, "epoch_steps": steps, "seconds_per_step": step}
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


# --- all of them --------------------------------------------------------------------------------


def run(
    name: str, methods: Sequence[str], trials: int, minutes: float, *,
    profile: str = "paper", parameters: int | None = None, cpu_threads: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Do the missing trials of a search, and write the result after each.

    Args:
        name: key of :data:`SEARCHES`.
        methods: keys of :data:`METHODS`.
        trials: of each method.
        minutes: processor time of a trial.
        profile: whose folder the result goes to, and whose smaller tasks are taken.
        parameters: of each network, about, if other than those of the search.
        cpu_threads: threads of PyTorch and the kernels.

    Returns:
        The content of ``results/search/<name>.json`` of the profile. For each of ``methods`` it has
        ``trials``, and ``best``, the index of the one with the best figure (None without any).

    Raises:
        ConfigError: earlier trials had another time, size or space, or the time is too short.
        UncommittedChangesError: a result for ``paper/`` would be made from uncommitted code.
    """
    require_clean(figures.folder(profile))
    search = SEARCHES[name]
    search = replace(search, parameters=parameters or search.parameters)
    file = result_file(name, profile)
    head = {"search": name, **asdict(search), "minutes": minutes, "threads": cpu_threads}
    read = partial(_read, file, head | {"profile": profile}, methods)
    out = figures.repository() / f"build/{profile}/search/{name}"
    out.mkdir(parents=True, exist_ok=True)
    with threads(cpu_threads):
        for trial, method in product(range(trials), methods):  # a search that is stopped is even
            if trial < len(read()["methods"][method]["trials"]):
                continue
            own: dict[str, Any] = {"threads": cpu_threads, "out": out / method}
            config = configure(search, method, trial, profile, **own)
            result = run_trial(config, minutes)
            with FileLock(out / "lock"):  # other processes may search other methods
                done = read()
                entry = done["methods"][method]
                about = {"seed": trial, "settings": _settings(method, config)}
                entry["trials"].append(about | result)
                entry["best"] = best_of(entry["trials"])
                commits = dict.fromkeys([*done["git_commits"], result["git_commit"]])
                done["git_commits"] = list(commits)
                write_text(file, json.dumps(done, indent=1, allow_nan=False) + "\n")
            print(f"{method}, trial {trial + 1} of {trials}: {_describe(result)}", flush=True)
    return read()


def result_file(name: str, profile: str = "paper") -> Path:
    """Return the file for the result of a search, and make its folder."""
    folder = figures.folder(profile) / "results" / "search"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def best_of(trials: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the trial with the best figure; None if all of them failed."""
    ended = [index for index, trial in enumerate(trials) if "error" not in trial]
    if not ended:
        return None
    figure = figure_of(trials[ended[0]])
    sign = -1 if figure == Regression.figure else 1
    return max(ended, key=lambda index: sign * trials[index][f"val_{figure}"])


def _read(file: Path, head: dict[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Return the content of a result, with an entry for each method.

    ConfigError if it began with another ``head``, or the spaces of ``methods`` were others.
    """
    common = {name: asdict(one) for name, one in COMMON.items()}
    spaces = {
        name: {
            "fields": dict(METHODS[name].fields),
            "ranges": common | {key: asdict(one) for key, one in METHODS[name].ranges.items()},
        }
        for name in methods
    }
    head, spaces = json.loads(json.dumps([head, spaces]))  # as they come out of a file
    done: dict[str, Any] = {**head, "git_commits": [], "methods": {}}
    if file.is_file():
        done = json.loads(file.read_text(encoding="utf-8"))
    for name, space in spaces.items():
        done["methods"].setdefault(name, {**space, "best": None, "trials": []})
    pairs = [(head, done), *((space, done["methods"][name]) for name, space in spaces.items())]
    for wanted, found in pairs:
        if changed := [key for key in wanted if found.get(key) != wanted[key]]:
            raise ConfigError(
                f"{changed[0]} is {wanted[changed[0]]}, but the trials in {file} had "
                f"{found.get(changed[0])}: choose as they did, or delete them"
            )
    return done


def _settings(method: str, config: TrainConfig) -> dict[str, Any]:
    """Return the fields that the search has chosen."""
    names = {**COMMON, **METHODS[method].ranges, "hidden_size": None}
    if names.pop("units", None):
        names["width"] = None
    return {name: getattr(config, name) for name in names}


def _describe(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    figure, seconds = figure_of(result), result["processor_seconds"]
    shown = format_figure(figure, result[f"val_{figure}"])
    return f"{figure.replace('_', ' ')} {shown} in {seconds:.0f} s of the processor"


@dataclass
class Command:
    """The options of the command line."""

    search: tyro.conf.Positional[str]
    """what to train on: a key of SEARCHES"""
    methods: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[METHOD ...]")
    ] = tuple(METHODS)
    """what to train: keys of METHODS"""
    trials: int = 8
    """of each method"""
    minutes: float = 10.0
    """processor time of each trial"""
    threads: int = 1
    """CPU threads"""
    profile: str = "paper"
    """whose folder the result goes to: paper; or quick or smoke, on less data"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=__doc__)
    for given, known in (((command.search,), set(SEARCHES)), (command.methods, set(METHODS))):
        if unknown := set(given) - known:
            refuse(PROGRAM, f"there is no {min(unknown)}: choose from {', '.join(sorted(known))}")
    if command.profile not in PROFILES:
        refuse(PROGRAM, f"profile must be one of {', '.join(PROFILES)}; got {command.profile}")
    for name in ("trials", "minutes", "threads"):
        if not getattr(command, name) > 0:
            refuse(PROGRAM, f"{name} must be above 0; got {getattr(command, name)}")

    def search() -> None:
        run(
            command.search, command.methods, command.trials, command.minutes,
            profile=command.profile, cpu_threads=command.threads,
        )  # fmt: skip
        print(f"written to {result_file(command.search, command.profile)}")

    return report_errors(PROGRAM, search)


if __name__ == "__main__":
    sys.exit(main())
