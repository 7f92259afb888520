"""The output that notebooks are committed with, without what is of one machine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image

from experiments.files import write_text
from experiments.folders import repository

#: The most bytes of an image.
LARGEST = 120_000
#: What tells of one machine or one process.
_LOCAL = re.compile(
    "|".join(re.escape(f"{folder}/") for folder in (Path.home(), tempfile.gettempdir()))
    + r"|\bat 0x[0-9a-f]{6,}"
)


class OutputError(ValueError):
    """A notebook's output is not fit to be committed; the message says why."""


def digest(notebook: NotebookNode) -> str:
    """Return the SHA-256 of the code of all cells: prose may change without a new run."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def keep(executed: Path, notebook: Path) -> None:
    """Put the output of an executed copy into a notebook, with the digest of its code."""
    content, run = (nbformat.read(path, as_version=4) for path in (notebook, executed))
    ids = {cell.id for cell in content.cells}
    run.cells = [cell for cell in run.cells if cell.id in ids]  # without injected parameters
    if digest(run) != digest(content):
        raise OutputError("the notebook has been edited while it ran")
    made = {cell.id: cell.outputs for cell in run.cells if cell.cell_type == "code"}
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = _cleaned(made[cell.id]), None
    content.metadata["sources"] = digest(content)
    check(content)
    write_text(notebook, nbformat.writes(content) + "\n")


def check(notebook: NotebookNode) -> None:
    """Raise an OutputError if the output is of other code, too large, or of one machine."""
    if notebook.metadata.get("sources") != digest(notebook):
        raise OutputError("it is of other code: run make notebooks")
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        outputs = json.dumps(cell.outputs)
        found = _LOCAL.search(outputs) or re.search(re.escape(str(repository())), outputs)
        if found:
            raise OutputError(f"it names {found[0]!r}, which is of this machine, in\n{cell.source}")
        if cell.execution_count is not None or '"stderr"' in outputs or "widget" in outputs:
            raise OutputError(
                f"it has counts, messages or widgets: run make notebooks\n{cell.source}"
            )
        for data in (output.get("data", {}) for output in cell.outputs):
            if max(map(len, map(str, data.values())), default=0) > LARGEST * 4 / 3:
                raise OutputError(f"an image has more than {LARGEST:,} bytes, in\n{cell.source}")


def _cleaned(outputs: list[NotebookNode]) -> list[dict[str, Any]]:
    """Leave out messages, such as those of a build, and join what was printed."""
    cleaned: list[dict[str, Any]] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if "execution_count" in output:
            output["execution_count"] = None
        if "image/png" in (data := output.get("data", {})):
            data["image/png"] = _smaller(data["image/png"])
        if output.output_type == "stream" and cleaned and cleaned[-1].get("name") == "stdout":
            cleaned[-1]["text"] += output.text
        else:
            cleaned.append(output)
    return cleaned


def _smaller(png: str) -> str:
    """Draw an image with few colours, if that is enough to make it smaller."""
    image, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    if getattr(image, "is_animated", False):
        return png
    image.convert("RGB").quantize(48, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return min(png, base64.b64encode(file.getvalue()).decode(), key=len)
