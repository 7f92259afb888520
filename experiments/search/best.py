"""Summarise a search: the expected validation performance of each method after n trials."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np

from experiments.page_tables.markdown import Table, count
from experiments.search.space import METHODS


def curves(done: dict[str, Any]) -> dict[str, list[float]]:
    """Return the expected validation performance of each method after 1, 2, ... trials.

    That is the mean of the best of n draws, with replacement, from all trials (Dodge et al., 2019).
    A trial that failed counts as the worst of all. Values are rounded to 12 places, since the last
    bits of a sum depend on the processor, and a table must not.
    """
    ended = [t["val_accuracy"] for ts in done["methods"].values() for t in ts if "error" not in t]
    worst = min(ended, default=0.0)
    found = {}
    for method, trials in done["methods"].items():
        values = np.sort([trial.get("val_accuracy", worst) for trial in trials])
        shares = np.arange(len(values) + 1) / len(values)
        sums = [float(values @ np.diff(shares**n)) for n in range(1, 1 + len(values))]
        found[method] = [round(one, 12) for one in sums]
    return found


def minutes(trials: list[dict[str, Any]]) -> float:
    """Return the mean processor time of a trial."""
    return fmean(trial["processor_seconds"] for trial in trials) / 60


def table(done: dict[str, Any]) -> Table:
    """Make a row of each method; where there are fewer trials than n, it is the best of all."""
    rows = []
    for method, expected in curves(done).items():
        trials = done["methods"][method]
        best = [expected[min(n, len(trials)) - 1] for n in (1, 5, 20)]
        best.append(max(trial.get("val_accuracy", 0.0) for trial in trials))
        failed = sum("error" in trial for trial in trials)
        cells = [f"{100 * accuracy:.2f} %" for accuracy in best]
        rows.append([METHODS[method][0], *cells, str(failed), f"{minutes(trials):.1f}"])
    head = "|mean|expected best of 5|expected best of 20|best|failed|minutes a trial"
    return Table(head, rows, f"{done['cpu']}, {count(done['threads'], 'thread')}.")
