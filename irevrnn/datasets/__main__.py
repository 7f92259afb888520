"""Fetch and verify data sets: ``python -m irevrnn.datasets mnist``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from irevrnn.datasets import DataError, names


def main(argv: list[str] | None = None) -> int:
    """Prepare the data sets that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m irevrnn.datasets", description=__doc__)
    parser.add_argument("name", nargs="+", choices=names(), help=f"one of: {', '.join(names())}")
    parser.add_argument(
        "--root",
        type=Path,
        help="folder that holds one folder per data set "
        "(default: IREVRNN_DATA, or data/ of the repository)",
    )
    arguments = parser.parse_args(argv)
    try:
        for name in arguments.name:
            print(importlib.import_module(f"irevrnn.datasets.{name}").prepare(arguments.root))
    except DataError as error:
        print(f"irevrnn.datasets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
