"""Run the experiments of the paper: ``python -m experiments NAME``.

Runs that are missing are done, one that was stopped or killed is resumed, and the result is written
to ``paper/results/experiments/NAME.json``.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from experiments import catalogue
from experiments.command_line import Names, refuse, report_errors

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
        print(catalogue.describe(name, results))


def _time(names: Sequence[str], command: Command) -> None:
    for name in names:
        config = catalogue.config_of(name, threads=command.threads)
        seconds, steps = catalogue.seconds_per_step(config)
        minutes = seconds * steps / 60
        print(f"{name}: {seconds:.3f} s a step, {steps:,} steps: {minutes:.0f} minutes", flush=True)


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
