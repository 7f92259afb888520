"""Data sets: one module or package reads each of them.

A data set that can be fetched has ``prepare(root) -> str``, which fetches and verifies it and
returns a one-line summary; :mod:`experiments.datasets.archives` describes those that are converted
then. One that users bring has ``convert(name, raw, out, workers)``, which converts the authors'
files in ``raw`` into the format of :mod:`experiments.datasets.recordings` in ``out`` and returns
the :class:`~experiments.datasets.recordings.Recordings`; it may add ``summary(recordings) -> str``.
``python -m experiments.datasets NAME`` calls them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.provenance import REPOSITORY


class DataError(RuntimeError):
    """A data set is out of reach or damaged; the message says what to do."""


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds one folder per data set.

    It is ``root`` if given, else IREVRNN_DATA, else ``data/`` of the repository.
    """
    return Path(root or os.environ.get("IREVRNN_DATA") or REPOSITORY / "data").expanduser()


@contextmanager
def as_data_error(folder: Path) -> Iterator[None]:
    """Turn an OSError of the system into a DataError that names the folder to be written."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot be written to ({error})") from error
