"""Evaluate trained networks of the paper: ``python -m experiments.evaluate NAME``.

The weights of each run of an experiment are in ``paper/weights/NAME``. The command tests them on
the test data, and prints the figure of each run and their mean beside those in ``paper/results``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import tyro

from experiments import catalogue, weights
from experiments.command_line import Names, refuse, report_errors, require_positive
from experiments.process import threads
from experiments.train.config import ConfigError
from experiments.train.evaluate import evaluate
from experiments.train.loop import format_figure
from irevrnn.kernels.jit.compiler import say

PROGRAM = "python -m experiments.evaluate"


@dataclass
class Command:
    """The options of the command line."""

    names: Names = ()
    """the experiments; if none is named, all that have weights, whose data must be there"""
    threads: int | None = None
    """CPU threads"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=__doc__)
    require_positive(PROGRAM, threads=command.threads)
    known = sorted(path.name for path in weights.folder().glob("*") if path.is_dir())
    if not known:
        refuse(PROGRAM, f"there are no weights in {weights.folder()}")
    if unknown := [name for name in command.names if name not in known]:
        refuse(PROGRAM, f"there are no weights of {unknown[0]!r}: choose from {', '.join(known)}")

    def run() -> None:
        with threads(command.threads):
            for name in command.names or known:
                print_figures(name)

    return report_errors(PROGRAM, run)


def print_figures(name: str) -> None:
    """Test the weights of every run of an experiment, and print their figures."""
    config = catalogue.config_of(name)
    result = json.loads(catalogue.result_file(name).read_text(encoding="utf-8"))
    figure, digest = f"test_{result['figure']}", result["data"].get("digest")
    found = []
    for (run, one), written in zip(config.runs(), result["runs"], strict=True):
        task = one.task(torch.device("cpu"))
        if task.data_set != result["data_set"]:
            raise ConfigError(
                f"{name} was tested on {result['data_set']}, but the data here are {task.data_set}"
            )
        if digest is not None and task.facts["digest"] != digest:  # older results have none
            say(f"warning: the recordings here are not those of the paper's {name}")
        model = one.model.build(task)
        model.load_state_dict(weights.load(name, run))
        found.append(evaluate(model, task.test_batches(), task.objective).figure)
        shown = [format_figure(figure, x) for x in (found[-1], written[figure])]
        print(
            f"{name}, {run or 'the run'}: {figure} {shown[0]}, in the paper {shown[1]}", flush=True
        )
    means = [format_figure(figure, x) for x in (fmean(found), result[figure]["mean"])]
    print(f"{name}, mean: {figure} {means[0]}, in the paper {means[1]}")


if __name__ == "__main__":
    sys.exit(main())
