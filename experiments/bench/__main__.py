"""Measure speed and memory against the peers: ``python -m experiments.bench``, ``make bench``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from experiments.bench import suite
from experiments.bench.recurrences import METHODS, OURS, Shape
from experiments.bench.scans import PLAN, Plan
from experiments.bench.stacks import StackShape
from experiments.bench.tables import tables
from experiments.files import write_text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def _sizes(kind: type[Shape] | type[StackShape], wanted: str, text: str) -> Shape | StackShape:
    try:
        shape = kind(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
    if any(size < (field != "couplings") for field, size in shape._asdict().items()):
        raise argparse.ArgumentTypeError(f"sizes must be at least 1, and R at least 0: {text!r}")
    return shape


_shape = "T,B,H,R", partial(_sizes, Shape, "T,B,H,R, such as 784,32,128,3")
_stack = "T,B,IN,H,L", partial(_sizes, StackShape, "T,B,IN,H,L, such as 784,32,128,128,2")
_steps = "T", _count
#: Options that take several values: how they are read, their defaults and their help.
_LISTS: dict[str, tuple[tuple[str, Callable[[str], object]], Sequence[object], str]] = {
    "--shapes": (_shape, suite.SHAPES, "steps, batch, hidden units and couplings of each problem"),
    "--stacks": (
        _stack, suite.STACKS, "steps, batch, features, hidden units and layers of each stack that "
        "is trained under each strategy",
    ),
    "--lengths": (_steps, suite.LENGTHS, "steps of very long sequences"),
    "--floor": (
        _shape, PLAN.floor,
        "shapes where the scan alone is compared with its floor, beside --shapes",
    ),
    "--two-threads": (_shape, PLAN.two_threads, "shapes where two threads are compared with one"),
    "--packed": (_shape, PLAN.packed, "shapes of sequences of 1 to T steps, packed"),
    "--flat": (
        _steps, PLAN.flat, "lengths at which the time of a step of the scan alone is compared"
    ),
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Time forward plus backward of irevrnn and of what people use today, "
        "interleaved in one process, and count the bytes saved in between. Print tables and write "
        "JSON.",
    )
    for name, ((letters, read), default, text) in _LISTS.items():
        shown = (",".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in default)
        parser.add_argument(
            name, nargs="+" if name == "--shapes" else "*", type=read, metavar=letters,
            default=default, help=f"{text} (default: {' '.join(shown)})",
        )  # fmt: skip
    help = "threads for PyTorch and the kernels (default: %(default)s)"
    parser.add_argument("--threads", type=_count, default=1, help=help)
    help = "interleaved rounds (default: %(default)s); a very slow method runs fewer"
    parser.add_argument("--repetitions", type=_count, default=suite.REPETITIONS, help=help)
    peers = [name for name in METHODS if name not in OURS]
    help = "what to compare with (default: all of %(choices)s)"
    parser.add_argument(
        "--peers", nargs="+", choices=peers, default=peers, metavar="NAME", help=help
    )
    help = "where the JSON goes (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), help=help)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON."""
    options = _parser().parse_args(arguments)
    report = suite.run(
        options.shapes,
        names=options.peers,
        threads=options.threads,
        repetitions=options.repetitions,
        stacks=options.stacks,
        lengths=options.lengths,
        alone=Plan(options.floor, options.two_threads, options.flat, options.packed),
    )
    print(tables(report))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
