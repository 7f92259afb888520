"""Rows of Markdown, and the results that they are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Entry = Mapping[str, Any]


class TableError(Exception):
    """A table cannot be made; the message says why."""


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        head: the headings of the columns, parted by ``|``.
        rows: the cells of each row.
        note: a line below the table, or nothing.
    """

    head: str
    rows: Iterable[Iterable[str]]
    note: str = ""

    def __str__(self) -> str:
        head = self.head.split("|")
        lines = [head, ["---"] * len(head), *self.rows]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{text}\n\n*{self.note}*" if self.note else text


def read(results: Path, name: str) -> dict[str, Any]:
    """Return the content of ``<name>.json`` in the folder of results."""
    path = results / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read: {error}") from None


def scientific(number: float) -> str:
    """Return such as ``2.2e-3``."""
    return f"{number:.1e}".replace("e-0", "e-")


def count(number: int, noun: str) -> str:
    """Return such as ``1 seed``, ``3 seeds`` and ``3 processes``."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"
