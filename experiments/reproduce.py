"""Run notebooks from top to bottom, for ``make reproduce`` and ``make notebooks``.

Executed notebooks go to ``build/PROFILE/notebooks``, each also as a page of HTML. Cells may have
tags ``figure:NAME``: for one figure alone, cells that are tagged with others only are left out, as
are those tagged ``results``. In the paper profile, all of a notebook is run, because a result and
its figures are of one run; or, if the figure's cells are tagged ``part:NAME``, all but other parts.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbformat
import papermill
import tyro
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from experiments import outputs
from experiments.command_line import refuse
from experiments.folders import PROFILES, folder, repository

PROGRAM = "python -m experiments.reproduce"


@dataclass
class Command:
    """The options of the command line."""

    notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NOTEBOOK")]
    """the notebooks to run, in this order"""
    profile: str = "quick"
    """smoke, quick or paper"""
    figure: str | None = None
    """run only what this figure needs (in the paper profile, all of its notebook's part: a result
    and its figures are of one run)"""
    keep: tyro.conf.FlagCreatePairsOff[bool] = False
    """put the output into the notebooks themselves, to be committed"""


def main(argv: list[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=__doc__)
    if command.profile not in PROFILES:
        refuse(PROGRAM, f"profile must be one of {', '.join(PROFILES)}; got {command.profile!r}")
    if missing := [one for one in command.notebooks if not one.is_file()]:
        refuse(PROGRAM, f"there is no notebook {missing[0]}")
    if data := os.environ.get("IREVRNN_DATA"):  # notebooks run in their own folder
        os.environ["IREVRNN_DATA"] = str(Path(data).expanduser().absolute())
    seconds, started = {}, time.time()
    for notebook in command.notebooks:
        print(f"== {notebook} ({command.profile})", flush=True)
        start = time.monotonic()
        try:
            target = run(notebook, command.profile, command.figure)
            if command.keep:
                outputs.keep(target, notebook)
        except PapermillExecutionError as error:
            print(error, file=sys.stderr)
            refuse(PROGRAM, f"{notebook} failed: see above")
        except outputs.OutputError as error:
            refuse(PROGRAM, f"the output of {notebook} is not kept: {error}")
        seconds[target.with_suffix(".html")] = time.monotonic() - start
    for page, taken in seconds.items():
        print(f"{taken / 60:5.1f} minutes  {page.relative_to(repository())}")
    if command.figure:
        drawn = folder(command.profile) / "figures" / f"{command.figure}.svg"
        if not drawn.is_file() or drawn.stat().st_mtime < started:
            refuse(PROGRAM, f"no cell of these notebooks draws {command.figure}")
        print(f"drawn: {drawn.relative_to(repository())}")
    return 0


def run(notebook: Path, profile: str, figure: str | None = None) -> Path:
    """Execute a notebook, or the cells that a figure needs; return the executed copy.

    With a figure, it goes to a folder of that name, and does not replace the whole notebook.

    Raises:
        PapermillExecutionError: a cell failed. The copy has all that ran before.
    """
    target = repository() / "build" / profile / "notebooks" / (figure or "") / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    content = nbformat.read(notebook, as_version=4)
    if figure:
        in_parts = profile == "paper"
        content.cells = _needed(content.cells, figure, in_parts)
    nbformat.write(content, target)
    parameters: dict[str, str | bool] = {"profile": profile}
    if "interactive" in papermill.inspect_notebook(target):
        parameters["interactive"] = False  # papermill may wait for ever for a slider's messages
    papermill.execute_notebook(
        target, target, parameters, kernel_name="python3", cwd=notebook.parent,
        extra_arguments=["--log-level=ERROR"],  # it warns of TCP, which stays on this machine
    )  # fmt: skip
    page, _ = HTMLExporter().from_filename(str(target))
    target.with_suffix(".html").write_text(page, encoding="utf-8")
    return target


def _needed(cells: list[NotebookNode], figure: str, whole_part: bool) -> list[NotebookNode]:
    """Return the cells that a figure needs, or those of its part and of none."""

    def tags(cell: NotebookNode, kind: str) -> set[str]:
        return {tag for tag in cell.metadata.get("tags", []) if tag.startswith(kind)}

    mine = f"figure:{figure}"
    parts = {part for cell in cells if mine in tags(cell, "") for part in tags(cell, "part:")}
    cells = [cell for cell in cells if not parts or tags(cell, "part:") <= parts]
    if whole_part:
        return cells
    return [
        cell
        for cell in cells
        if "results" not in tags(cell, "") and (mine in tags(cell, "") or not tags(cell, "figure:"))
    ]


if __name__ == "__main__":
    sys.exit(main())
