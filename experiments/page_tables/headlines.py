"""The results that README.md opens with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.page_tables.costs import LENGTHS
from experiments.page_tables.markdown import Entry, Table, count, read, scientific
from experiments.page_tables.trained import score


class _Task(NamedTuple):
    """A row of the table of accuracies.

    Attributes:
        label: the task.
        forgetting: the experiment with units that forget, or nothing.
        conserving: the same with u = 1, or nothing.
        others: experiments to compare with, and what the row calls them.
        published: what others report.
    """

    label: str
    forgetting: str
    conserving: str
    others: Mapping[str, str] = {}
    published: str = ""


def accuracies(results: Path) -> Table:
    """Tabulate what networks trained with ``reversible`` reach, and what others do."""
    published = json.loads((results.parent / "published.json").read_text(encoding="utf-8"))
    s5 = next(row for row in published if row["name"] == "S5")
    chance = read(results, "experiments/copy-long")["data"]["chance"]
    tasks = (
        _Task(
            "MNIST, 14 by 14 pixels, one a step", "block", "block-conserving",
            {
                "block-lru": "the same blocks around LRUs",
                "tanh": "plain tanh layers (a fifth of the parameters)",
            },
        ),
        _Task(
            "MNIST, 28 by 28 pixels", "smnist-block", "smnist-block-conserving",
            published=f"S5 reports {s5['sequential']} %",
        ),
        _Task(
            "pixels permuted, another network", "pmnist-block-forgetting",
            "pmnist-block-conserving",
            {
                "pmnist-linoss": "a block around LinOSS (trained longer)",
                "pmnist-lru": "around an LRU (longer, too)",
            },
            published=f"S5 reports {s5['permuted']} %",
        ),
        _Task(
            "spoken digits (FSDD), speakers also in training", "digits", "digits-conserving",
            {"digits-resnet": "convolutional network", "digits-speakers": "ours, unseen speakers"},
        ),
        _Task(
            "ECG (CinC 2017), people may recur, mean F1", "ecg", "",
            {"ecg-resnet": "convolutional network"},
            "winners of the challenge 0.83 (hidden recordings)",
        ),
        _Task(
            f"copying ten symbols (chance {100 * chance:.1f} %)", "", "copy-long",
            {
                "copy-long-frozen": "couplings frozen",
                "copy-long-truncated": "gradients of the last tenth of the steps",
            },
        ),
        _Task("the same", "", "copy-million"),
    )  # fmt: skip
    rows = [_accuracy_row(results, task) for task in tasks]
    return Table("|steps, at most|units that forget|u = 1|others", rows)


def _accuracy_row(results: Path, task: _Task) -> list[str]:
    ours = task.forgetting or task.conserving
    steps = read(results, f"experiments/{ours}")["data"]["sequence_length"]
    cells = [_score(results, name) if name else "" for name in (task.forgetting, task.conserving)]
    others = [f"{label} {_score(results, name)}" for name, label in task.others.items()]
    others += [task.published] if task.published else []
    return [task.label, f"{steps:,}", *cells, "; ".join(others)]


def _score(results: Path, name: str) -> str:
    """Return the score of an experiment, with the number of its runs unless it is three."""
    trained = read(results, f"experiments/{name}")
    seeds, runs, figure = trained["num_seeds"], trained["num_runs"], trained["figure"]
    shown = score(figure, trained[f"test_{figure}"]["mean"])
    if runs > seeds:
        return f"{shown} ({runs // seeds} folds)"
    return shown if seeds == 3 else f"{shown} ({count(seeds, 'seed')})"


def step_costs(results: Path) -> Table:
    """Tabulate what a training step on the longest sequence of each strategy costs."""
    report, inverse = (read(results, name) for name in ("memory", "inverse"))
    rows = sorted(report["lengths"], key=lambda row: row["steps"])
    longest = {row["line"]: row for row in rows}
    cells = []
    for line, label in LENGTHS.items():
        row = longest[line]
        time, memory = 1e6 * row["seconds"] / row["steps"], row["peak_bytes"] / 1e6
        error = _gradient_error(inverse["long_gradient_errors"], row)
        cells.append([label, f"{row['steps']:,}", f"{memory:,.0f} MB", f"{time:.1f} µs", error])
    environment = report["environment"]
    machine = f"{environment['cpu']}, {count(environment['threads'], 'thread')}"
    return Table(f"{machine}|steps|memory|time per time step|error of the gradient", cells)


def _gradient_error(errors: Entry, row: Entry) -> str:
    """Return the error of a row's network; for checkpoints that of the one with u = 1, too."""
    found = {
        memories: scientific(of[str(row["steps"])][row["method"]])
        for memories, of in errors.items()
        if row["method"] in of.get(str(row["steps"]), {})
    }
    own = found.pop(row["memories"], "")
    others = [f"{memories}: {error}" for memories, error in found.items()]
    return own if row["method"] == "reversible" else "; ".join([own, *others])
