"""Measure speed and memory against the peers: ``python -m experiments.bench``, ``make bench``."""

from __future__ import annotations

import json
from pathlib import Path

import tyro

from experiments.bench import suite
from experiments.bench.tables import tables
from experiments.command_line import require_positive
from experiments.files import write_text

PROGRAM = "python -m experiments.bench"


def main(output: Path = Path("build/bench.json"), threads: int = 1, repetitions: int = 9) -> None:
    """Time irevrnn and its peers, count the bytes that they save, print tables and write JSON.

    Args:
        output: where the JSON goes.
        threads: for PyTorch and the kernels.
        repetitions: interleaved rounds; a very slow method runs fewer.
    """
    require_positive(PROGRAM, threads=threads, repetitions=repetitions)
    output.parent.mkdir(parents=True, exist_ok=True)
    report = suite.run(suite.Plan(threads=threads, repetitions=repetitions))
    write_text(output, json.dumps(report, indent=2) + "\n")
    print(f"{tables(report)}\n\nwritten to {output}")


if __name__ == "__main__":
    tyro.cli(main, prog=PROGRAM)
