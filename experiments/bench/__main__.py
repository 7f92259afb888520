"""Measure speed and memory against the peers: ``python -m experiments.bench``, ``make bench``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.bench import suite
from experiments.bench.tables import tables
from experiments.files import write_text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Time forward plus backward of irevrnn and of what people use today, "
        "interleaved in one process, and count the bytes saved in between. Print tables and write "
        "JSON.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plan = suite.Plan
    parser.add_argument("--threads", type=_count, default=plan.threads, help="of most measurements")
    parser.add_argument(
        "--repetitions", type=_count, default=plan.repetitions, help="interleaved rounds"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), help="where the JSON goes"
    )
    options = parser.parse_args(arguments)
    report = suite.run(plan(threads=options.threads, repetitions=options.repetitions))
    print(tables(report))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
