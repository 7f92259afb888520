"""Collect what was trained, and write the tables of the pages: ``make tables``.

:mod:`.collected` says what is collected; it is, wherever a result has changed since.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from experiments.files import write_text
from experiments.page_tables import collected, costs, trained
from experiments.page_tables.markdown import Table, TableError
from experiments.provenance import REPOSITORY, UncommittedChangesError

PROGRAM = "python -m experiments.page_tables"
_BEGIN = "<!-- table: "
_MARKED = re.compile(rf"({_BEGIN}(\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

#: The tables by name.
TABLES: dict[str, Callable[[Path], Table]] = {
    **trained.TABLES,
    "step-costs": costs.step_costs,
    "speed": costs.speed,
    "shapes": costs.shapes,
    "scan": costs.scan,
    "stacks": costs.stacks,
    "frontier": costs.frontier,
    "gradients": costs.gradients,
}


def update(text: str, results: Path) -> tuple[str, list[str]]:
    """Make the tables on a page again.

    Returns:
        The new text of the page, and the names of the tables that are not what they were.

    Raises:
        TableError: a name is unknown, a mark has no end, or a result is missing or incomplete.
    """
    marks = _MARKED.findall(text)
    if len(marks) < text.count(_BEGIN) or any(_BEGIN in old for _, _, old, _ in marks):
        raise TableError("a <!-- table: NAME --> has no <!-- end -->")
    changed = []

    def replace(mark: re.Match[str]) -> str:
        begin, name, old, end = mark.groups()
        new = f"\n{_make(name, results)}\n\n"
        if new != old:
            changed.append(name)
        return begin + new + end

    return _MARKED.sub(replace, text), changed


def _make(name: str, results: Path) -> Table:
    if name not in TABLES:
        raise TableError(f"there is no table {name!r}: choose from {', '.join(TABLES)}")
    try:
        return TABLES[name](results)
    except KeyError as error:
        raise TableError(f"table {name!r}: its result has no entry {error}") from None


def main(check: tyro.conf.FlagCreatePairsOff[bool] = False) -> None:
    """Write the tables in README.md and docs/ from the results in paper/results.

    Before, collect the experiments in paper/results/experiments.json and draw their figures.

    Args:
        check: change nothing; print a line for what is stale, and fail if anything is.
    """
    stale = collected.stale()
    if stale and check:
        print("paper/results/experiments.json is stale: run make tables")
    elif stale:
        try:
            collected.write()
        except UncommittedChangesError as error:
            sys.exit(f"{PROGRAM}: {error}")
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))):
        shown = page.relative_to(REPOSITORY)
        try:
            text, changed = update(page.read_text(encoding="utf-8"), REPOSITORY / "paper/results")
        except TableError as error:
            sys.exit(f"{PROGRAM}: {shown}: {error}")
        for name in changed:
            print(f"{shown}: table {name} {'is stale: run make tables' if check else 'written'}")
        if changed and not check:
            write_text(page, text)
        stale |= bool(changed)
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    tyro.cli(main, prog=PROGRAM)
