"""Data sets: each has a name and a module that reads it.

The module of a data set that can be fetched has ``prepare(root) -> str``, which fetches, verifies
and says in one line what there is and where it came from. The module of one that people bring has
``convert(name, raw, out, workers) -> Recordings``, which reads the files of its authors in the
folder ``raw``, converts them into the folder ``out`` (see :mod:`experiments.datasets.recordings`) and
returns what it made; it may have ``summary(recordings) -> str``, which says more of that.
``python -m experiments.datasets NAME`` calls the one or the other.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

#: The module of each data set.
MODULES = {
    "mnist": "mnist",
    "msr": "kinect",
    "ntu": "ntu",
    "utkinect": "kinect",
    "watch": "watch",
}


class DataError(RuntimeError):
    """A data set is out of reach or damaged; the message says what was tried and the way out."""


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds one folder per data set.

    Args:
        root: the folder, if the caller names one.

    Returns:
        ``root``, or else IREVRNN_DATA, or else ``data/`` of the repository that the package is in,
        or else (an installed package) ``~/.cache/irevrnn``.
    """
    chosen = root or os.environ.get("IREVRNN_DATA")
    if chosen:
        return Path(chosen).expanduser()
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").is_file():
        return repository / "data"
    return Path.home() / ".cache" / "irevrnn"


def names() -> list[str]:
    """The data sets there are, by name."""
    return sorted(MODULES)


def module_of(name: str) -> ModuleType:
    """The module that reads the data set ``name``."""
    return importlib.import_module(f"experiments.datasets.{MODULES[name]}")
