"""The table of searched settings: what every method reaches with as many trials, each as long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.page_tables.markdown import Table, read
from experiments.page_tables.trained import scores
from experiments.search.space import METHODS
from experiments.train.runs import figure_of

#: The columns: searches, and their headings.
SEARCHES = {
    "mnist": "pixels in order",
    "permuted": "pixels permuted",
    "adding": "adding, squared error",
    "copy": "copying",
}


def searched(results: Path) -> Table:
    """Tabulate what the best setting of each method reaches in each search."""
    done = {name: read(results, f"search/{name}") for name in SEARCHES}
    rows = []
    for method, of in METHODS.items():
        entries = [search["methods"].get(method, {}) for search in done.values()]
        rows.append([of.label, *(_cell(entry) if "test" in entry else "" for entry in entries)])
    rows = [row for row in rows if any(row[1:])]
    searches = done.values()
    trials = min(len(entry["trials"]) for x in searches for entry in x["methods"].values())
    [minutes] = {search["minutes"] for search in searches}
    note = (
        f"Mean over new seeds with the best of {trials} settings, each of which trained for "
        f"{minutes:g} minutes of processor time; in brackets, the training steps in that time."
    )
    return Table("|".join(["", *SEARCHES.values()]), rows, note)


def _cell(entry: dict[str, Any]) -> str:
    best, test = entry["trials"][entry["best"]], entry["test"]
    mean, _, _ = scores({**test, "data": {}, "figure": figure_of(best)})
    return f"{mean} ({best['steps']:,})"
