"""The command line of the search, and its result: every trial of every method."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro
from filelock import FileLock

import experiments.search
from experiments import figures, folders
from experiments.command_line import refuse, report_errors, require_positive
from experiments.files import write_text
from experiments.process import threads
from experiments.provenance import provenance, require_clean
from experiments.search.best import curves, minutes, table
from experiments.search.space import METHODS, SEARCHES, configure, settings_of
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.loop import train
from irevrnn import ReversalError

PROGRAM = "python -m experiments.search"
#: What a result keeps of a trial.
_KEPT = ("val_accuracy", "num_parameters", "processor_seconds", "wall_seconds", "git_commit")


@dataclass
class Command:
    """The options of the command line."""

    search: tyro.conf.Positional[str]
    """what to train on"""
    methods: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[METHOD ...]")
    ] = tuple(METHODS)
    """what to train; everything if nothing is named"""
    trials: int = 20
    """of each method"""
    threads: int = 1
    """CPU threads"""
    profile: str = "paper"
    """whose folder the result goes to: paper; or quick or smoke, on less data"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    lists = f"Searches: {', '.join(SEARCHES)}.\n\nMethods: {', '.join(METHODS)}."
    about = f"{experiments.search.__doc__}\n{lists}"
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=about)
    for given, known in (((command.search,), set(SEARCHES)), (command.methods, set(METHODS))):
        if unknown := set(given) - known:
            refuse(PROGRAM, f"there is no {min(unknown)}: choose from {', '.join(sorted(known))}")
    if command.profile not in folders.PROFILES:
        choices = ", ".join(folders.PROFILES)
        refuse(PROGRAM, f"profile must be one of {choices}; got {command.profile}")
    require_positive(PROGRAM, trials=command.trials, threads=command.threads)
    return report_errors(PROGRAM, lambda: print(summary(run(command))))


def run(command: Command) -> dict[str, Any]:
    """Do the trials that are missing in the result of a search, and write it after each.

    Returns:
        The content of ``results/search/NAME.json`` of the profile. For each method it has the
        ``trials``: number, settings, validation figure (or ``error``) and times of each.

    Raises:
        ConfigError: the trials that are there had other tasks, threads or another processor.
        UncommittedChangesError: a result for ``paper/`` would be made from uncommitted code.
    """
    require_clean(folders.folder(command.profile))
    name, profile, search = command.search, command.profile, SEARCHES[command.search]
    head = {"search": name, **asdict(search), "profile": profile, "threads": command.threads}
    head["cpu"] = provenance()["cpu"]
    file = folders.subfolder(profile, "results/search") / f"{name}.json"
    out = folders.repository() / f"build/{profile}/search/{name}"
    out.mkdir(parents=True, exist_ok=True)
    with threads(command.threads), FileLock(out / "lock"):
        done = _read(file, head)
        # A search that is stopped has done about as much for each method.
        for trial, method in product(range(command.trials), command.methods):
            trials = done["methods"].setdefault(method, [])
            if trial < len(trials):
                continue
            settings = settings_of(search, method, trial, profile)
            own = {"seed": trial, "threads": command.threads, "out": out / method}
            result = _train(configure(search, method, settings, profile, **own))
            trials.append({"trial": trial, "settings": settings, **result})
            write_text(file, json.dumps(done, indent=1, allow_nan=False) + "\n")
            print(f"{method}, trial {trial + 1}: {result}", flush=True)
    return done


def _read(file: Path, head: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a result; ConfigError if it began with another ``head``."""
    if not file.is_file():
        return {**head, "methods": {}}
    done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key, wanted in json.loads(json.dumps(head)).items():
        if done.get(key) != wanted:
            raise ConfigError(
                f"{key} is {wanted}, but the trials in {file} had {done.get(key)}: go on as they "
                "began, or delete them"
            )
    return done


def _train(config: TrainConfig) -> dict[str, Any]:
    """Train, and return what the result keeps; an ``error`` in place of a figure if it failed."""
    started = time.process_time()
    try:
        result = train(config, progress=False)
    except (ArithmeticError, ReversalError) as error:
        seconds = time.process_time() - started
        commit = provenance()["git_commit"]
        return {"error": str(error), "processor_seconds": seconds, "git_commit": commit}
    updates = result["history"][-1]["step"]
    return {"updates": updates, **{key: result[key] for key in _KEPT}}


def summary(done: dict[str, Any]) -> str:
    """Draw the curves of a search, and return its table."""
    figures.style()
    drawn = figures.expected_best({
        METHODS[one][0]: (expected, minutes(done["methods"][one]))
        for one, expected in curves(done).items()
    })  # fmt: skip
    figures.save(drawn, f"search_{done['search']}", done["profile"])
    return str(table(done))


if __name__ == "__main__":
    sys.exit(main())
