"""Tables of searched settings: what every method reaches with as many trials, each as long."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from experiments.page_tables.markdown import Entry, Table, read
from experiments.page_tables.trained import score, scores
from experiments.search.space import METHODS
from experiments.train.objectives import Regression
from experiments.train.runs import figure_of


def searched(search: str, results: Path) -> Table:
    """Tabulate the search with this name."""
    done = read(results, f"search/{search}")
    found = [(name, done["methods"][name]) for name in METHODS if name in done["methods"]]
    rows = [[METHODS[name].label, *_cells(entry)] for name, entry in found if "test" in entry]
    head = "|best trial|median|test|lowest to highest|layers|units|rate|read|steps|parameters"
    counts = {len(entry["trials"]) for _, entry in found}
    trials = f"{'At least ' if len(counts) > 1 else ''}{min(counts)} trials"
    note = (
        f"{trials} of {done['minutes']:g} minutes of processor time each; "
        "best and median: validation data; test: new seeds with the best setting"
    )
    return Table(head, rows, note)


def _cells(entry: Entry) -> list[str]:
    best, test = entry["trials"][entry["best"]], entry["test"]
    figure, settings = figure_of(best), best["settings"]
    worst = math.inf if figure == Regression.figure else 0.0  # what a trial that failed counts as
    found = [trial.get(f"val_{figure}", worst) for trial in entry["trials"]]
    mean, span, _ = scores({**test, "data": {}, "figure": figure})
    return [
        *(score(figure, x) for x in (best[f"val_{figure}"], statistics.median(found))),
        mean, span, f"{settings['num_layers']}", f"{settings['hidden_size']}",
        f"{settings['lr']:.1e}", settings["read"], f"{best['steps']:,}",
        f"{best['num_parameters']:,}",
    ]  # fmt: skip
