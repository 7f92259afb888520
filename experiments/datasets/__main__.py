"""Fetch or convert a data set: ``python -m experiments.datasets mnist``.

A data set that can be fetched is fetched and verified. One that people bring is read from the
folder RAW and converted into the folder OUT; what could not be read is listed, a line each.

Exit status: 0 if all is well, 1 if nothing was made, 3 if some files were rejected, 130 if
stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

from experiments.datasets import DataError, module_of, names

REJECTED = 3
STOPPED = 130


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except DataError as error:
        print(f"experiments.datasets: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments.datasets: stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="data sets", metavar="NAME", required=True)
    for name in names():
        module = module_of(name)
        add = _add_conversion if hasattr(module, "convert") else _add_preparation
        add(commands, name, module)
    return parser


def _add_preparation(commands: argparse._SubParsersAction, name: str, module: ModuleType) -> None:
    command = commands.add_parser(name, help="fetch and verify", description=module.__doc__)
    command.add_argument(
        "--root",
        type=Path,
        help="folder that holds one folder per data set "
        "(default: IREVRNN_DATA, or data/ of the repository)",
    )

    def run(arguments: argparse.Namespace) -> int:
        print(module.prepare(arguments.root))
        return 0

    command.set_defaults(run=run)


def _add_conversion(commands: argparse._SubParsersAction, name: str, module: ModuleType) -> None:
    command = commands.add_parser(
        name,
        help="convert RAW, the authors' files, into OUT",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("raw", type=Path, metavar="RAW", help="folder of the authors' files")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    command.add_argument(
        "--workers", type=_count, help="processes that read (default: one for each core)"
    )

    def run(arguments: argparse.Namespace) -> int:
        given = {} if arguments.workers is None else {"workers": arguments.workers}
        recordings = module.convert(name, arguments.raw, arguments.out, **given)
        print(
            f"{recordings.about.data_set}: {len(recordings):,} recordings, "
            f"{len(recordings.frames):,} frames in {arguments.out}"
        )
        if hasattr(module, "summary"):
            print(module.summary(recordings))
        if recordings.rejected:
            print(f"rejected: {len(recordings.rejected):,}", file=sys.stderr)
            for one in recordings.rejected:
                print(one, file=sys.stderr)
        return REJECTED if recordings.rejected else 0

    command.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
