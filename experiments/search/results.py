"""The result of a search: all trials, and the tests of the best settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments import folders
from experiments.files import write_text
from experiments.process import threads
from experiments.provenance import require_clean
from experiments.search.space import METHODS, SEARCHES
from experiments.search.trials import choose_settings, configure, run_trial
from experiments.train.config import ConfigError, updated
from experiments.train.loop import format_figure
from experiments.train.objectives import Regression
from experiments.train.runs import figure_of, summarise, train_all

#: The first seed of the tests, above those of all trials.
FIRST_SEED = 1000


def run(
    name: str, methods: Sequence[str], trials: int, minutes: float, *,
    profile: str = "paper", cpu_threads: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Do the missing trials of a search, and write the result after each.

    Args:
        name: key of :data:`SEARCHES`.
        methods: keys of :data:`METHODS`.
        trials: of each method.
        minutes: processor time of a trial.
        profile: whose folder the result goes to, and whose smaller tasks are taken.
        cpu_threads: threads of PyTorch and the kernels.

    Returns:
        The content of ``results/search/<name>.json`` of the profile. For each of ``methods`` it has
        ``trials``, and ``best``, the index of the one with the best figure (None without any).

    Raises:
        ConfigError: earlier trials had another time, size or space, or the time is too short.
        UncommittedChangesError: a result for ``paper/`` would be made from uncommitted code.
    """
    require_clean(folders.folder(profile))
    head = _head(name, profile) | {"minutes": minutes, "threads": cpu_threads}
    with threads(cpu_threads), _result(name, profile, head, methods) as (done, write):
        for trial, method in product(range(trials), methods):  # a search that is stopped is even
            entry = done["methods"][method]
            if trial < len(entry["trials"]):
                continue
            settings = choose_settings(SEARCHES[name], method, trial, profile)
            own = {"seed": trial, "threads": cpu_threads, "out": _folder(name, profile) / method}
            config = configure(SEARCHES[name], method, settings, profile, **own)
            result = run_trial(config, minutes)
            _add_trial(entry, {"seed": trial, "settings": settings} | result)
            write([result["git_commit"]])
            print(f"{method}, trial {trial + 1} of {trials}: {_describe(result)}", flush=True)
        return done


def test_best(
    name: str, methods: Sequence[str], seeds: int, *, profile: str = "paper", cpu_threads: int = 1
) -> dict[str, Any]:
    """Train the best setting of each method again with new seeds, and test each network once.

    Schedules are those of the trials. ``irevrnn`` and ``irevrnn-u1`` are two methods, like any
    others: the better one of two would have had twice the trials.

    Args:
        name, methods, profile, cpu_threads: as for :func:`run`.
        seeds: networks of each method.

    Returns:
        The content of the result. For each of ``methods`` it has ``test``, the summary of all
        seeds (:func:`experiments.train.runs.summarise`) of the ``trial`` with this index.

    Raises:
        ConfigError: there is no result, or no trial of a method in it has ended.
        UncommittedChangesError: as for :func:`run`.
    """
    require_clean(folders.folder(profile))
    file = result_file(name, profile)
    if not file.is_file():
        raise ConfigError(f"there is no {file}: search first, without --test-seeds")
    with _result(name, profile, _head(name, profile), methods) as (done, write):
        for method in methods:
            entry = done["methods"][method]
            if entry["best"] is None:
                raise ConfigError(f"{file} has no trial of {method} that has ended: search first")
            best = entry["trials"][entry["best"]]
            out = _folder(name, profile) / f"{method}-{best['seed']}"
            config = configure(
                SEARCHES[name], method, best["settings"], profile, threads=cpu_threads,
                epochs=best["epochs"], epoch_steps=best["epoch_steps"], seed=FIRST_SEED,
                seeds=seeds, test=True, resume=True, out=out,
            )  # fmt: skip
            runs = [replace(one, out=out / of_seed) for of_seed, one in config.runs()]
            results = [train_all(one, progress=False) for one in runs]
            summary = summarise(config.identity(), results)
            entry["test"] = {"trial": entry["best"], **summary}
            write(summary["git_commits"])
            figure = f"test_{figure_of(best)}"
            shown = format_figure(figure, summary[figure]["mean"])
            print(f"{method}: {figure} {shown} on average over {seeds} seeds", flush=True)
        return done


def _add_trial(entry: dict[str, Any], one: dict[str, Any]) -> None:
    entry["trials"].append(one)
    best = best_of(entry["trials"])
    if best != entry["best"]:
        entry.pop("test", None)  # it was of another setting
    entry["best"] = best


@contextmanager
def _result(
    name: str, profile: str, head: dict[str, Any], methods: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Callable[[Sequence[str | None]], None]]]:
    """Give the content of a result, and a function of new commits that writes it.

    Another process waits for the file meanwhile.
    """
    with FileLock(_folder(name, profile) / "lock"):
        done = _read(result_file(name, profile), head, methods)

        def write(commits: Sequence[str | None]) -> None:
            done["git_commits"] = list(dict.fromkeys([*done["git_commits"], *commits]))
            text = json.dumps(done, indent=1, allow_nan=False)
            write_text(result_file(name, profile), text + "\n")

        yield done, write


def _folder(name: str, profile: str) -> Path:
    """Return the folder for the runs of a search, and make it."""
    folder = folders.repository() / f"build/{profile}/search/{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _head(name: str, profile: str) -> dict[str, Any]:
    """Return what a result says of its search."""
    head = {"search": name, **asdict(SEARCHES[name]), "profile": profile}
    del head["ranges"]  # each method has its own
    return head


def result_file(name: str, profile: str = "paper") -> Path:
    """Return the file for the result of a search, and make its folder."""
    return folders.subfolder(profile, "results/search") / f"{name}.json"


def read_search(name: str) -> dict[str, Any] | None:
    """Return the committed result of a search; None if there is none."""
    file = result_file(name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


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

    ConfigError if it is no such content, it began with another ``head``, or the spaces of
    ``methods`` were others.
    """
    search = SEARCHES[head["search"]]
    spaces = {
        name: {
            "fields": dict(METHODS[name].fields),
            "ranges": {key: asdict(one) for key, one in search.ranges_of(name).items()},
        }
        for name in methods
    }
    head, spaces = json.loads(json.dumps([head, spaces]))  # as they come out of a file
    done: dict[str, Any] = {**head, "git_commits": [], "methods": {}}
    if file.is_file():
        try:
            done = json.loads(file.read_text(encoding="utf-8"))
            done["methods"], done["git_commits"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{file} is no result of a search: {error!r}; delete it") from None
    for name, space in spaces.items():
        done["methods"].setdefault(name, {**space, "best": None, "trials": []})
    pairs = [(head, done), *((space, done["methods"][name]) for name, space in spaces.items())]
    for wanted, found in pairs:
        found = {**found, "fields": updated(found.get("fields", {}))}
        if changed := [key for key in wanted if found.get(key) != wanted[key]]:
            raise ConfigError(
                f"{changed[0]} is {wanted[changed[0]]}, but the trials in {file} had "
                f"{found.get(changed[0])}: choose as they did, or delete them"
            )
    return done


def _describe(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    figure, seconds = figure_of(result), result["processor_seconds"]
    shown = format_figure(figure, result[f"val_{figure}"])
    of = f"{result['steps']:,} steps and {seconds:.0f} s of the processor"
    return f"{figure.replace('_', ' ')} {shown} in {of}"
