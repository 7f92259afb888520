"""Where the time of a training step goes: ``python -m experiments.bench.profile mnist``.

Takes the options of ``python -m experiments.train``, trains some steps from end to end, data loading
included, under PyTorch's profiler, and sums the time up by what it was spent on. The same steps are
timed without the profiler, which takes time itself: most of all where many small operations run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from experiments.bench.measure import Timing, environment, wall_clock
from experiments.datasets import DataError
from experiments.files import write_text
from experiments.process import threads
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.loop import Run, add_tasks, config_of
from experiments.train.task import Batch, Task
from irevrnn.allocator import use_caching_allocator

#: Steps before any is timed: memory is allocated, kernels are loaded.
WARMUP = 3
#: Operations that are named.
SHOWN = 15
_DATA = "experiments.bench.profile: data"
#: What time is spent on, and the operations that it is known by; the first that fits counts. What
#: is called within a step of the optimizer, or to get a batch, belongs to that.
PARTS = {
    "data": (_DATA,),
    "optimizer": ("Optimizer.", "aten::_foreach_"),  # the second: clipping, too
    # The second is what PyTorch calls an operator's forward pass where its gradient is wanted.
    "kernels": ("irevrnn::", "GeneratedBackwardFor_irevrnn_"),
    "products": (
        "aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "aten::linear", "mkldnn::",
    ),
    "norm": (
        "aten::batch_norm", "aten::native_batch_norm", "aten::_batch_norm", "aten::layer_norm",
        "aten::native_layer_norm",
    ),
    "copies": (
        "aten::copy_", "aten::_to_copy", "aten::clone", "aten::contiguous", "aten::cat",
        "aten::stack", "aten::fill_", "aten::zero_",
    ),
}  # fmt: skip
LABELS = {
    "kernels": "kernels of irevrnn",
    "products": "matrix products",
    "norm": "batch or layer norm",
    "copies": "copies and fills",
    "data": "data",
    "optimizer": "optimizer and clipping",
    "other": "other operations",
    "python": "Python between operations",
}


def run(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Profile some steps of a training run.

    Args:
        config: a single run on the CPU. Nothing is written to its ``out``.
        steps: how many are profiled, after as many that are timed without the profiler.

    Returns:
        The report, ready for JSON: ``environment``, ``config``, ``steps``, quartiles of a step in
        milliseconds without the profiler (``step``), the mean with it (``profiled_ms``), and for
        each of :data:`LABELS` in ``parts`` its ``ms`` a step and its ``share`` of ``profiled_ms``.
        ``longest`` has the ``name``, ``part`` and ``ms`` a step of the operations that take most.

    Raises:
        ConfigError: the run is too short, or not on the CPU.
    """
    use_caching_allocator()
    with threads(config.threads):
        training = Run(config, progress_bar=False)
        _check(training, steps)
        batches = _batches(training.task)

        def step() -> None:
            with record_function(_DATA):
                x, y = next(batches)
            training.step(x, y)

        for _ in range(WARMUP):
            step()
        plain = Timing(tuple(wall_clock(step) for _ in range(steps)))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            seconds = sum(wall_clock(step) for _ in range(steps))
        found = {
            "environment": environment(),
            "config": config.identity(),
            "steps": steps,
            "step": plain.in_milliseconds(),
            "profiled_ms": 1e3 * seconds / steps,
        }
    events = profiled.events() or ()
    spent = sum_up(events)
    spent["python"] = max(0.0, seconds - sum(spent.values()))
    found["parts"] = {
        name: {"ms": 1e3 * spent[name] / steps, "share": spent[name] / seconds} for name in LABELS
    }
    found["longest"] = [
        {"name": name, "part": part, "ms": 1e3 * spent_on_it / steps}
        for (name, part), spent_on_it in longest(events)
    ]
    return found


def _check(training: Run, steps: int) -> None:
    device = training.fabric.device.type
    if device != "cpu":
        raise ConfigError(f"device must be cpu to be profiled; got {device!r}")
    wanted = WARMUP + 2 * steps
    if wanted > training.total_steps:
        raise ConfigError(
            f"epochs must be enough for {wanted} steps; {training.config.epochs} have "
            f"{training.total_steps}"
        )


def _batches(task: Task) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from task.train_batches(epoch, 0)
        epoch += 1


def sum_up(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Sum up the seconds that the profiler found, each operation without those that it called.

    Args:
        events: of a profile of the CPU.

    Returns:
        Seconds for each of :data:`PARTS`, and for ``other``.
    """
    spent = dict.fromkeys((*PARTS, "other"), 0.0)
    for event in events:
        spent[_part(event)] += event.self_cpu_time_total / 1e6
    return spent


def longest(events: Iterable[FunctionEvent]) -> list[tuple[tuple[str, str], float]]:
    """Name and part of the :data:`SHOWN` operations that take most, with their seconds."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        spent[event.name, _part(event)] += event.self_cpu_time_total / 1e6
    return sorted(spent.items(), key=lambda entry: -entry[1])[:SHOWN]


def _part(event: FunctionEvent) -> str:
    """What an operation belongs to."""
    within: FunctionEvent | None = event
    while within is not None:
        for name in ("data", "optimizer"):
            if within.name.startswith(PARTS[name]):
                return name
        within = within.cpu_parent
    return next((name for name, known in PARTS.items() if event.name.startswith(known)), "other")


def table(report: dict[str, Any]) -> str:
    """Write a report as text."""
    step = report["step"]
    lines = [
        f"A step takes {step['median_ms']:.1f} ms ({step['low_ms']:.1f}-{step['high_ms']:.1f}), "
        f"{report['profiled_ms']:.1f} ms under the profiler, of which"
    ]
    for name, label in LABELS.items():
        part = report["parts"][name]
        lines.append(f"{label:<28}{part['ms']:>8.2f} ms{part['share']:>8.1%}")
    lines.append("\nThe longest operations:")
    for row in report["longest"]:
        lines.append(f"{row['name']:<44}{LABELS[row['part']]:<24}{row['ms']:>8.2f} ms")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Profile as the command line says, print the table, write the JSON; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.profile",
        description="Sum up what the time of a training step is spent on, data loading included. "
        "Takes the options of python -m experiments.train after the name of the task.",
    )
    parser.add_argument("--steps", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("build/profile.json"), help="where the JSON goes "
        "(default: %(default)s)",
    )  # fmt: skip
    add_tasks(parser)
    arguments = vars(parser.parse_args(argv))
    steps, output = arguments.pop("steps"), arguments.pop("output")
    if steps < 1:
        parser.error(f"--steps must be at least 1; got {steps}")
    config = config_of(parser, arguments)
    try:
        report = run(config, steps)
    except (ConfigError, DataError) as error:
        print(f"experiments.bench.profile: {error}", file=sys.stderr)
        return 1
    print(table(report))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
