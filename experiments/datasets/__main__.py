"""Fetch or convert a data set: ``python -m experiments.datasets mnist``.

A data set that can be fetched is fetched and verified; with ``--raw``, where it has that option,
the files are taken from a folder instead. One that you bring is read from the folder RAW and
converted into the folder OUT. Files that cannot be read are listed, one per line.

Exit status: 0 on success, 1 if nothing was made, 3 if some files were rejected, 130 after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType

from experiments.datasets import (
    DataError,
    aclimdb,
    cinc2017,
    data_root,
    fsdd,
    kinect,
    mnist,
    ntu,
    shakespeare,
    watch,
)
from experiments.datasets.archives import obtain
from experiments.datasets.recordings import Recordings

#: The module of each data set, by name.
FETCHED: dict[str, ModuleType] = {
    "aclimdb": aclimdb, "mnist": mnist, "shakespeare": shakespeare, "watch": watch,
}  # fmt: skip
ARCHIVES: dict[str, ModuleType] = {"cinc2017": cinc2017, "fsdd": fsdd}
CONVERTED: dict[str, ModuleType] = {"msr": kinect, "ntu": ntu, "utkinect": kinect}
REJECTED = 3
STOPPED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(argv)
    problem = "stopped"
    try:
        if options.name in CONVERTED:
            return _convert(options.name, options.raw, options.out, options.workers)
        if options.name in ARCHIVES:
            return _obtain(options.name, options.root, options.raw)
        print(FETCHED[options.name].prepare(options.root))
        return 0
    except DataError as error:
        status, problem = 1, str(error)
    except KeyboardInterrupt:
        status = STOPPED
    print(f"experiments.datasets: {problem}", file=sys.stderr)
    return status


def _obtain(name: str, root: Path | None, raw: Path | None) -> int:
    recordings = obtain(name, ARCHIVES[name], root, raw)
    return _report(recordings, data_root(root) / name)


def _convert(name: str, raw: Path, out: Path, workers: int | None) -> int:
    module = CONVERTED[name]
    recordings = module.convert(name, raw, out, workers)
    status = _report(recordings, out)
    if hasattr(module, "summary"):
        print(module.summary(recordings))
    return status


def _report(recordings: Recordings, out: Path) -> int:
    """Say what was converted and what was rejected; return the exit status."""
    sizes = f"{len(recordings):,} recordings, {len(recordings.frames):,} frames"
    print(f"{recordings.about.data_set}: {sizes} in {out}; {recordings.about.source}")
    rejected = recordings.rejected
    if rejected:
        print(f"rejected: {len(rejected):,}", *rejected, sep="\n", file=sys.stderr)
    return REJECTED if rejected else 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets", description=__doc__, formatter_class=plain
    )
    commands = parser.add_subparsers(title="data sets", metavar="NAME", dest="name", required=True)
    for name, module in sorted({**FETCHED, **ARCHIVES, **CONVERTED}.items()):
        task = "convert RAW into OUT" if name in CONVERTED else "fetch and verify"
        command = commands.add_parser(
            name, help=task, description=module.__doc__, formatter_class=plain
        )
        if name not in CONVERTED:
            root = "folder of the data sets (default: IREVRNN_DATA, or data/ of the repository)"
            command.add_argument("--root", type=Path, help=root)
            if name in ARCHIVES:
                files = "take the published files, unpacked, from this folder: nothing is fetched"
                command.add_argument("--raw", type=Path, metavar="FOLDER", help=files)
            continue
        command.add_argument("raw", type=Path, metavar="RAW", help="folder of the authors' files")
        command.add_argument("out", type=Path, metavar="OUT", help="folder to write")
        processes = "processes that read (default: one per core)"
        command.add_argument("--workers", type=_count, help=processes)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
