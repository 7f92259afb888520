"""Run the experiments of the paper: ``python -m experiments NAME``.

Runs that are missing are done, one that was stopped or killed is resumed, and the result is written
to ``paper/results/experiments/NAME.json``.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import tyro

from experiments import catalogue
from experiments.command_line import Names, refuse, report_errors
from experiments.process import threads
from experiments.tasks.synthetic import SyntheticConfig
from experiments.train.config import TrainConfig
from experiments.train.run import Run
from irevrnn.kernels.allocator import use_caching_allocator

PROGRAM = "python -m experiments"


@dataclass
class Command:
    """The options of the command line."""

    names: Names = ()
    """the experiments; with --list or --time, all of them if none is named"""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """describe the experiments and their results, and stop"""
    time: tyro.conf.FlagCreatePairsOff[bool] = False
    """time a few steps of each, and stop"""
    threads: int | None = None
    """CPU threads"""
    max_minutes: float | None = None
    """write a checkpoint and stop after this time"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=__doc__)
    known = catalogue.EXPERIMENTS
    if unknown := [name for name in command.names if name not in known]:
        refuse(PROGRAM, f"there is no experiment {unknown[0]}: choose from {', '.join(known)}")
    if not (command.names or command.list or command.time):
        refuse(PROGRAM, "name the experiments to run (--list describes them)")
    if command.max_minutes is not None and not command.max_minutes >= 0:
        refuse(PROGRAM, f"max_minutes must be at least 0; got {command.max_minutes}")
    action = _list if command.list else _time if command.time else _run
    return report_errors(PROGRAM, lambda: action(command.names or tuple(known), command))


def _list(names: Sequence[str], command: Command) -> None:
    results = catalogue.read_results()
    for name in names:
        print(_describe(name, results))


def _describe(name: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe an experiment, and its result if there is one, in a line."""
    experiment = catalogue.EXPERIMENTS[name]
    state = "not yet run"
    if name in results:
        figure = f"test_{results[name]['figure']}"
        state = f"{figure} {results[name][figure]['mean']:.4g}"
    fields = ", ".join(f"{key} {value}" for key, value in experiment.fields.items())
    like = f", as many parameters as {experiment.like}" if experiment.like else ""
    return f"{name}: {experiment.task}, {fields}{like}; seeds {experiment.seeds}; {state}"


def _time(names: Sequence[str], command: Command) -> None:
    for name in names:
        config = catalogue.config_of(name, threads=command.threads)
        seconds, steps = _seconds_per_step(config)
        minutes = seconds * steps / 60
        print(f"{name}: {seconds:.3f} s a step, {steps:,} steps: {minutes:.0f} minutes", flush=True)


def _seconds_per_step(config: TrainConfig, steps: int = 3) -> tuple[float, int]:
    """Return the seconds of the fastest of some training steps, and the steps of all runs.

    Where sequences grow from epoch to epoch, the seconds are the mean over epochs. Validation comes
    on top.
    """
    use_caching_allocator()
    runs = config.runs()
    grows = isinstance(config, SyntheticConfig) and config.growth > 1
    with threads(config.threads):
        first = Run(runs[0][1])

        def fastest(epoch: int) -> float:
            times = []
            for x, y in islice(first.task.train_batches(epoch, 0), 1 + steps):
                start = time.perf_counter()
                first.step(x, y)
                times.append(time.perf_counter() - start)
            return min(times)

        seconds = fmean(map(fastest, range(first.config.epochs if grows else 1)))
    return seconds, first.total_steps * len(runs)


def _run(names: Sequence[str], command: Command) -> None:
    started, left = time.monotonic(), command.max_minutes
    for name in names:
        print(f"== {name}", flush=True)
        if command.max_minutes is not None:
            left = max(0.0, command.max_minutes - (time.monotonic() - started) / 60)
        if catalogue.run(name, threads=command.threads, max_minutes=left) is None:
            print(f"{name} continues with the same command")
            return
        print(f"written to {catalogue.result_file(name)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
