"""The command line of the search."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from experiments.command_line import refuse, report_errors, require_positive
from experiments.folders import PROFILES
from experiments.search.results import result_file, run, test_best
from experiments.search.space import METHODS, SEARCHES

PROGRAM = "python -m experiments.search"
ABOUT = f"""Search settings for every method alike.

Every method gets the same number of random trials, and every trial about the same number of
parameters and the same processor time. Trials are judged on the validation data.

Searches: {", ".join(SEARCHES)}.

Methods: {", ".join(METHODS)}.

The result, with every trial, is paper/results/search/SEARCH.json (with another profile, below
build/PROFILE/). Trials that are in it are not repeated; one that was stopped starts again.
"""


@dataclass
class Command:
    """The options of the command line."""

    search: tyro.conf.Positional[str]
    """what to train on"""
    methods: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[METHOD ...]")
    ] = tuple(METHODS)
    """what to train; everything if nothing is named"""
    trials: int = 8
    """of each method"""
    minutes: float = 10.0
    """processor time of each trial"""
    threads: int = 1
    """CPU threads"""
    test_seeds: int | None = None
    """do no trials: train the best setting of each method with this many new seeds, and test each
    network once"""
    profile: str = "paper"
    """whose folder the result goes to: paper; or quick or smoke, on less data"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=ABOUT)
    for given, known in (((command.search,), set(SEARCHES)), (command.methods, set(METHODS))):
        if unknown := set(given) - known:
            refuse(PROGRAM, f"there is no {min(unknown)}: choose from {', '.join(sorted(known))}")
    if command.profile not in PROFILES:
        refuse(PROGRAM, f"profile must be one of {', '.join(PROFILES)}; got {command.profile}")
    numbers = ("trials", "minutes", "threads", "test_seeds")
    require_positive(PROGRAM, **{name: getattr(command, name) for name in numbers})

    def search() -> None:
        name, methods, seeds = command.search, command.methods, command.test_seeds
        options: Any = {"profile": command.profile, "cpu_threads": command.threads}
        if seeds is None:
            run(name, methods, command.trials, command.minutes, **options)
        else:
            test_best(name, methods, seeds, **options)
        print(f"written to {result_file(command.search, command.profile)}")

    return report_errors(PROGRAM, search)


if __name__ == "__main__":
    sys.exit(main())
