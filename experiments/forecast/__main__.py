"""Predict the next sample of MIT-BIH recordings: ``python -m experiments.forecast``.

Leave-one-recording-out: each method (:data:`experiments.forecast.training.METHODS`) trains on those
of other subjects for the same processor time, and is tested on the one left out. The learning rate
of each is chosen before, from the same few in the same time, by the bits of the first recording,
which is never tested; nothing else is kept of these networks, which have trained on the recordings
that are tested later. Results are bits per sample. What is done already is not done again.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tyro

from experiments import folders
from experiments.bench.measure import peak_memory
from experiments.command_line import report_errors, require_positive
from experiments.datasets import data_root
from experiments.datasets.recordings import open_recordings
from experiments.files import write_text
from experiments.forecast.data import Levels, levels_of
from experiments.forecast.linear import linear_bits
from experiments.forecast.memory import one_step
from experiments.forecast.training import METHODS, Settings, evaluate, train
from experiments.process import threads as use_threads
from experiments.provenance import provenance, require_clean
from experiments.train.checkpoints import make_folder
from experiments.train.config import ConfigError
from irevrnn import ReversalError
from irevrnn.kernels.allocator import use_caching_allocator

PROGRAM = "python -m experiments.forecast"
#: The learning rates that every method may choose from.
RATES = (1e-3, 4e-3, 1e-2)
#: Share of the time of a run that each of them gets in the search.
SEARCH_SHARE = 0.3


def run(settings: Settings, recordings: list[Levels], folds: list[int], file: Path) -> None:
    """Search, train and test what is missing in ``file``."""
    head = {"settings": asdict(settings), "recordings": [one.name for one in recordings]}
    done: dict[str, Any] = {**head, "search": {}, "linear": {}, "runs": {}}
    make_folder(file.parent)
    if file.is_dir():
        raise ConfigError(f"out must be a file; got the folder {file}")
    if file.is_file():
        done = _read(file)
        for key, wanted in head.items():
            if done[key] != wanted:
                raise ConfigError(f"{file} has other {key}: {done[key]}; delete it first")

    def keep() -> None:
        commits = [*done.get("git_commits", []), provenance()["git_commit"]]
        done["git_commits"] = list(dict.fromkeys(commits))
        write_text(file, json.dumps(done, indent=1, allow_nan=False) + "\n")

    for name in METHODS:
        if name not in done["search"]:
            done["search"][name] = _search(settings, name, recordings)
            keep()
    for fold in folds:
        left_out = recordings[fold]
        others = _of_others(recordings, left_out)
        if left_out.name not in done["linear"]:
            done["linear"][left_out.name] = linear_bits(others, left_out, settings.steps)
        for name in METHODS:
            key = f"{name}/{left_out.name}"
            if key in done["runs"]:
                continue
            best = min(done["search"][name], key=_bits)
            result = _train_and_test(replace(settings, lr=best["lr"]), name, others, left_out)
            done["runs"][key] = result | provenance()
            print(f"{key}: {_bits(result):.3f} bits per sample", flush=True)
            keep()
    if "peak_bytes" not in done:
        done["peak_bytes"] = {
            name: peak_memory(one_step, settings, name, threads=1, caching_allocator=True)
            for name in METHODS
        }
        keep()


def _read(file: Path) -> dict[str, Any]:
    try:
        done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        _ = [done[key] for key in ("settings", "recordings", "search", "linear", "runs")]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{file} is no result of a forecast ({error!r}): delete it") from error
    return done


def _search(settings: Settings, name: str, recordings: list[Levels]) -> list[dict[str, Any]]:
    """Return each learning rate and its bits on the first recording, trained on other subjects."""
    first, trials = recordings[0], []
    others = _of_others(recordings, first)
    for lr in RATES:
        short = replace(settings, lr=lr, minutes=SEARCH_SHARE * settings.minutes)
        result = _train_and_test(short, name, others, first)
        trials.append({"lr": lr, "bits": result["bits"]})
        print(f"search, {name}, lr {lr}: {_bits(result):.3f} bits", flush=True)
    return trials


def _of_others(recordings: list[Levels], left_out: Levels) -> list[Levels]:
    """Return the recordings of other subjects than that of ``left_out``."""
    return [one for one in recordings if one.subject != left_out.subject]


def _train_and_test(
    settings: Settings, name: str, others: list[Levels], left_out: Levels
) -> dict[str, Any]:
    """Return the figures of a run; its bits are None if it diverged."""
    try:
        network, figures_of = train(settings, METHODS[name], others)
    except (OverflowError, ReversalError) as error:  # states left the range, or became NaN
        return {"bits": None, "diverged": str(error)}
    bits = evaluate(network, left_out, settings.steps)
    return figures_of | {"bits": bits if math.isfinite(bits) else None}


def _bits(trial: dict[str, Any]) -> float:
    """Return the bits per sample, infinitely many if training diverged."""
    return math.inf if trial["bits"] is None else trial["bits"]


def main(
    minutes: float = 8.0,
    folds: int | None = None,
    steps: int | None = None,
    data: Path | None = None,
    out: Path | None = None,
    threads: int = 1,
) -> None:
    """Run the comparison.

    Args:
        minutes: processor time of each training run.
        folds: how many recordings to leave out, one after another; all but the first if not given.
        steps: of each recording; all of them if not given.
        data: folder of the data sets.
        out: the file to write; paper/results/forecast.json if not given.
        threads: of PyTorch and the kernels.
    """
    require_positive(PROGRAM, minutes=minutes, folds=folds, steps=steps, threads=threads)
    file = out or folders.folder("paper") / "results" / "forecast.json"
    if out is None:
        require_clean()
    recordings = levels_of(open_recordings(data_root(data) / "mitdb"))
    some = list(range(1, len(recordings)))[:folds]
    use_caching_allocator()
    with use_threads(threads):
        run(Settings(minutes=minutes, steps=steps), recordings, some, file)


if __name__ == "__main__":
    sys.exit(report_errors(PROGRAM, lambda: tyro.cli(main, prog=PROGRAM)))
