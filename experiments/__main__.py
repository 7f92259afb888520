"""Run the experiments of the paper: ``python -m experiments NAME``.

Runs that are missing are done, one that was stopped or killed is resumed, and the result is written
to ``paper/results/experiments/NAME.json``.
"""

import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from experiments.catalogue import (
    EXPERIMENTS,
    config_of,
    describe,
    read_results,
    result_file,
    run,
    seconds_per_step,
)
from experiments.command_line import refuse, report_errors

PROGRAM = "python -m experiments"


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    return tyro.cli(_command, args=argv, prog=PROGRAM, description=__doc__)


def _command(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = (),
    *,
    list: tyro.conf.FlagCreatePairsOff[bool] = False,
    time: tyro.conf.FlagCreatePairsOff[bool] = False,
    threads: int | None = None,
    max_minutes: float | None = None,
) -> int:
    """Run, list or time experiments.

    Args:
        names: the experiments; with --list or --time, all of them if none is named
        list: describe the experiments and their results, and stop
        time: time a few steps of each, and stop
        threads: CPU threads
        max_minutes: write a checkpoint and stop after this time
    """
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        refuse(
            PROGRAM, f"there is no experiment {unknown[0]}: choose from {', '.join(EXPERIMENTS)}"
        )
    if not (names or list or time):
        refuse(PROGRAM, "name the experiments to run (--list describes them)")
    names = names or tuple(EXPERIMENTS)
    if list:
        return report_errors(PROGRAM, lambda: _list(names))
    if time:
        return report_errors(PROGRAM, lambda: _time(names, threads=threads))
    return report_errors(PROGRAM, lambda: _run(names, max_minutes, threads=threads))


def _list(names: Sequence[str]) -> None:
    results = read_results()
    for name in names:
        print(describe(name, results))


def _time(names: Sequence[str], **operational: Any) -> None:
    for name in names:
        seconds, steps = seconds_per_step(config_of(name, **operational))
        minutes = seconds * steps / 60
        print(f"{name}: {seconds:.3f} s a step, {steps:,} steps: {minutes:.0f} minutes", flush=True)


def _run(names: Sequence[str], max_minutes: float | None, **operational: Any) -> None:
    started = time.monotonic()
    for name in names:
        print(f"== {name}", flush=True)
        left = max_minutes and max(0.0, max_minutes - (time.monotonic() - started) / 60)
        if run(name, max_minutes=left, **operational) is None:
            print(f"{name} continues with the same command")
            return
        print(f"written to {result_file(name)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
