"""Several runs of one configuration: its seeds, and the folds of its protocol."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from experiments.files import write_text
from experiments.train import checkpoints, device
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.loop import train
from experiments.train.report import format_figure
from experiments.train.summary import accuracy_together, figure_of, summarise


def train_all(config: TrainConfig, *, progress: bool = True) -> dict[str, Any]:
    """Train every run of ``config``: one, or one for each seed and fold.

    Each of several runs has a folder of its own below ``out``. With ``resume``, finished runs are
    not repeated, and one that was stopped continues.

    Args:
        config: the runs.
        progress: whether to show a progress bar and a line per epoch.

    Returns:
        The content of ``results.json`` in ``out``: of the one run, see
        :func:`experiments.train.loop.train`, or of all of them, see
        :func:`experiments.train.summary.summarise` (with several seeds, also of their ensemble:
        ``test_accuracy_together``). If ``max_minutes`` ran out, ``finished`` is False.

    Raises:
        As :func:`experiments.train.loop.train`.
    """
    runs = config.runs()
    if len(runs) == 1:
        return _train_once(runs[0][1], progress)
    if device.launched():
        raise ConfigError(
            f"folds and seeds are {len(runs)} runs, which several workers cannot share: start "
            "torchrun for one of them at a time, or run without it"
        )
    started = time.monotonic()
    results, files = [], []
    for name, one in runs:
        left = config.max_minutes and max(0, config.max_minutes - (time.monotonic() - started) / 60)
        one = replace(one, out=config.out / name, max_minutes=left)
        results.append(_train_once(one, progress))
        files.append(one.out / "test.npz")
        if not results[-1]["finished"]:
            return {"finished": False}
    summary = summarise(config.identity(), results)
    figure = f"{'test' if config.test else 'val'}_{figure_of(results[0])}"
    if figure == "test_accuracy" and config.seeds > 1:
        summary["test_accuracy_together"] = accuracy_together(results, files)
    write_text(config.out / "results.json", json.dumps(summary, indent=1) + "\n")
    if progress:
        tqdm.write(
            f"{summary['data_set']}: {figure} {format_figure(figure, summary[figure]['mean'])} on "
            f"average over {len(runs)} runs; {config.out / 'results.json'}"
        )
    return summary


def _train_once(config: TrainConfig, progress: bool) -> dict[str, Any]:
    return checkpoints.results_of(config) or train(config, progress=progress)
