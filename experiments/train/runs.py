"""Several runs of one configuration, its seeds and the folds of its protocol, and their summary."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.files import write_text
from experiments.provenance import provenance
from experiments.train import checkpoints
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.loop import format_figure, train
from experiments.train.objectives import Classification, CrossEntropy, MeanF1, Regression

#: Entries of each run in the summary.
_FIGURES = (
    "val_accuracy", "test_accuracy", "test_accuracy_of_recordings", "val_mean_f1", "test_mean_f1",
    "val_squared_error", "test_squared_error", "val_cross_entropy", "test_cross_entropy",
    "forgotten_bits",
)  # fmt: skip
#: The folder of a run among several.
_RUN = re.compile(r"(fold|seed)\d+")
_OF_A_RUN = ("seed", "best_epoch", *_FIGURES, "wall_seconds", "processor_seconds")


def train_all(config: TrainConfig, *, progress: bool = True) -> dict[str, Any]:
    """Train every run of ``config``: one, or one for each seed and fold.

    Each of several runs has a folder of its own below ``out``. With ``resume``, finished runs are
    not repeated, and one that was stopped continues.

    Arguments and errors are those of :func:`experiments.train.loop.train`.

    Returns:
        The content of ``results.json`` in ``out``: of the one run, or of all of them, see
        :func:`summarise`. If ``max_minutes`` ran out, ``finished`` is False.
    """
    runs = config.runs()
    if len(runs) == 1:
        return _train_once(runs[0][1], progress)
    if config.resume and (config.out / "last.pt").exists():
        raise ConfigError(
            f"the run in {config.out} is one run, and folds and seeds are {len(runs)}: choose "
            "another out, or start again without --resume"
        )
    folders = [config.out, *_folders_of_runs(config.out)]
    started = time.monotonic()
    results: list[dict[str, Any]] = []
    for name, one in runs:
        left = config.max_minutes and max(0, config.max_minutes - (time.monotonic() - started) / 60)
        one = replace(one, out=config.out / name, max_minutes=left)
        # All earlier runs go with the first, or a later --resume would take them for new ones.
        results.append(_train_once(one, progress, [] if results else folders))
        _check_same_data(results)
        if not results[-1]["finished"]:
            return {"finished": False}
    summary = summarise(config.identity(), results)
    write_text(config.out / "results.json", json.dumps(summary, indent=1) + "\n")
    if progress:
        figure = f"{'test' if config.test else 'val'}_{figure_of(results[0])}"
        tqdm.write(
            f"{summary['data_set']}: {figure} {format_figure(figure, summary[figure]['mean'])} on "
            f"average over {len(runs)} runs; {config.out / 'results.json'}"
        )
    return summary


def _check_same_data(results: Sequence[dict[str, Any]]) -> None:
    """Raise a ConfigError if the data changed between runs, one of which was resumed later."""
    first, last = ({**one, **one["data"]} for one in (results[0], results[-1]))
    for name in ("data_set", "source", "recordings", "digest", "class_names"):
        before, now = first.get(name), last.get(name)
        if None not in (before, now) and before != now:
            raise ConfigError(
                f"the data have changed since the first of these runs: {name} was {before!r} and "
                f"is {now!r}; start again without --resume, or choose another --out"
            )


def _folders_of_runs(out: Path) -> Iterator[Path]:
    """Yield the folders of seeds and folds in ``out``, of which there may be more than now."""
    for folder in out.glob("*"):
        if _RUN.fullmatch(folder.name):
            yield folder
            yield from _folders_of_runs(folder)


def _train_once(
    config: TrainConfig, progress: bool, replaced: Sequence[Path] = ()
) -> dict[str, Any]:
    finished = checkpoints.results_of(config)
    if finished is None:
        return train(config, progress=progress, replaced=replaced)
    if progress:
        tqdm.write(f"{finished['data_set']}: already finished; {config.out / 'results.json'}")
    return finished


def figure_of(result: Mapping[str, Any]) -> str:
    """Return the figure of a result: that of its objective."""
    figures = (objective.figure for objective in (Classification, CrossEntropy, MeanF1, Regression))
    return next(figure for figure in figures if f"val_{figure}" in result)


def summarise(config: dict[str, Any], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise the results of several runs, which share ``config``.

    Returns:
        Configuration, provenance and ``runs``; for each accuracy, or error, its ``mean`` over all
        runs, ``lowest`` and ``highest`` run, the standard ``deviation`` over runs, and that of the
        means over the folds of each seed, ``deviation_of_seeds`` (None for a single one). If
        classes were tested, the ``confusion_matrix`` of all tests and, where the tests name
        subjects, ``accuracy_of_subjects``. ``git_commits`` are those that the runs were made with.
    """
    first = results[0]
    data = [one["data"] for one in results]
    shared = {k: v for k, v in data[0].items() if all(one.get(k) == v for one in data)}
    summary = {
        "data_set": first["data_set"],
        "data": shared,
        "input_size": first["input_size"],
        "class_names": first["class_names"],
        "config": config,
        "num_parameters": first["num_parameters"],
        "device": first["device"],
        **provenance(),
        # Some of the runs may have finished long ago, before the code changed.
        "git_commits": list(dict.fromkeys(commit for one in results for commit in commits_of(one))),
        "threads": first["threads"],
        "wall_seconds": sum(one["wall_seconds"] for one in results),
        "processor_seconds": sum(one["processor_seconds"] for one in results),
        "num_runs": len(results),
        "num_seeds": len({one["seed"] for one in results}),
        "finished": True,
        "runs": [
            {key: one["data"].get(key) for key in ("fold", "train_size", "test_size")}
            | {key: one[key] for key in _OF_A_RUN if one.get(key) is not None}
            for one in results
        ],
    }
    summary |= {name: _spread(results, name) for name in _FIGURES if first.get(name) is not None}
    if "confusion_matrix" in first:
        matrices = [np.array(one["confusion_matrix"]) for one in results]
        summary["confusion_matrix"] = np.sum(matrices, axis=0).tolist()
    if "test_subjects" in first:
        right = defaultdict(list)
        for one in results:
            names = ("test_subjects", "test_labels", "test_predictions")
            for subject, label, predicted in zip(*(one[name] for name in names), strict=True):
                right[subject].append(label == predicted)
        summary["accuracy_of_subjects"] = {
            str(subject): statistics.fmean(right[subject]) for subject in sorted(right)
        }
    return summary


def commits_of(result: dict[str, Any]) -> list[str | None]:
    """Return the commits that a run was made with, one for each time that another continued it."""
    return result.get("git_commits", [result.get("git_commit")])


def _spread(results: Sequence[dict[str, Any]], name: str) -> dict[str, float | None]:
    values = [one[name] for one in results]
    by_seed = defaultdict(list)
    for one in results:
        by_seed[one["seed"]].append(one[name])
    means = [statistics.fmean(some) for some in by_seed.values()]
    return {
        "mean": statistics.fmean(values),
        "lowest": min(values),
        "highest": max(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "deviation_of_seeds": statistics.stdev(means) if len(means) > 1 else None,
    }
