"""Data sets: one module each, found by its name.

A module has ``prepare(root) -> str``, which fetches what may be fetched, verifies it and says in
one line what there is and where it came from. ``python -m irevrnn.datasets NAME`` calls it.
"""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path


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
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if not name.startswith("_"))
