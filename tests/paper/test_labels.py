"""Every equation that code or a notebook names by its label exists in the paper."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABEL = re.compile(r"\beq:[a-z0-9_-]+")
CODE = (".py", ".h", ".cpp", ".cu", ".cuh")


def typst_files(path):
    """A Typst file and all that it includes."""
    yield path
    for included in re.findall(r'#include "([^"]+)"', path.read_text()):
        yield from typst_files(path.parent / included)


def labels_in_paper():
    texts = [path.read_text() for path in typst_files(ROOT / "paper" / "paper.typ")]
    return {label for text in texts for label in re.findall(r"<(eq:[^>]+)>", text)}


def named_labels():
    folders = ("irevrnn", "experiments")
    files = [p for name in folders for p in (ROOT / name).rglob("*") if p.suffix in CODE]
    files += (ROOT / "notebooks").glob("*.ipynb")
    return {(label, path.name) for path in files for label in LABEL.findall(path.read_text())}


def test_labels_that_are_named_exist():
    named = named_labels()
    assert {"eq:cell", "eq:coupling", "eq:gradient"} <= {label for label, _ in named}
    defined = labels_in_paper()
    missing = sorted(f"{label} in {name}" for label, name in named if label not in defined)
    assert not missing
