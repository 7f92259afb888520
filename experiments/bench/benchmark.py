"""Speed and memory against the peers: ``python -m experiments.bench.benchmark``, or ``make bench``.

All methods of a shape are timed in one process, interleaved, forward plus backward; the ratios say
how many times as long as ours a method takes. A second process does the same with an allocator that
keeps freed memory. PyTorch as it comes gives large blocks back to the system and pays for each new
one page by page: half the time of ``nn.LSTM``, in some processes and not in others.

Then come the scan alone, against what the machine can do (:mod:`experiments.bench.scan_benchmark`), whole
stacks, a training step under each strategy (:mod:`experiments.bench.stacks`), and very long sequences, each
in a process of its own. Where there is a GPU, :mod:`experiments.bench.gpu_benchmark` goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.bench import gpu_benchmark, scan_benchmark
from experiments.bench.measure import (
    Timing,
    environment,
    in_fresh_process,
    interleaved_times,
    saved_bytes,
)
from experiments.bench.recurrences import METHODS, Problem, Recurrence, Shape, make_problem
from experiments.bench.stacks import METHODS as STACK_METHODS
from experiments.bench.stacks import StackShape, compare, measure_length
from experiments.files import write_text
from experiments.process import threads as use_threads
from irevrnn.allocator import use_caching_allocator
from irevrnn.backend import choose_backend
from irevrnn.jit.compiler import BuildError, find_compiler

SHAPES = (
    Shape(784, 32, 128, 3),
    Shape(784, 128, 128, 3),
    Shape(4096, 16, 128, 3),
    Shape(20, 128, 512, 3),
)
#: What ratios are taken to, so these are always measured: the bare recurrence, and with projection.
OURS = ("scan", "layer")
#: The peers that are nearest to ours, and the one that everyone knows.
STRONGEST = ("lstm", "compiled_chunks", "indrnn")
REPETITIONS = 9
STACKS = (StackShape(784, 32, 128, 128, 2),)
#: How the process treats freed memory, in titles of tables.
AS_IT_COMES, KEEPING = "PyTorch as it comes", "allocator keeps freed memory"
#: Steps of a sequence of one number that goes through two layers of 64 units.
LENGTHS = (10_000, 1_000_000)
#: What can be run at those lengths in a few GB.
FOR_LENGTHS = ("recompute", "checkpoint", "reversible")


def run(
    shapes: Iterable[Shape] = SHAPES,
    *,
    more: Iterable[Shape] = (),
    names: Sequence[str] = tuple(METHODS),
    threads: int = 1,
    repetitions: int = REPETITIONS,
    stacks: Iterable[StackShape] = STACKS,
    lengths: Iterable[int] = LENGTHS,
    alone: scan_benchmark.Plan | None = scan_benchmark.PLAN,
) -> dict[str, Any]:
    """Measure the methods at every shape.

    Args:
        shapes: (T, B, H, R) each.
        more: shapes where only the :data:`STRONGEST` of the peers are measured; they come last.
        names: keys of :data:`experiments.bench.recurrences.METHODS`; ours are always measured.
        threads: threads that PyTorch and the kernels may use.
        repetitions: interleaved rounds.
        stacks: (T, B, in, H, L) of each stack that is trained under each strategy.
        lengths: T of the very long sequences.
        alone: what is measured of the vectorised scan alone, with the floor of every shape; None
            for nothing.

    Returns:
        The report, ready for JSON: times in milliseconds, saved memory in bytes.
    """
    shapes, more = tuple(shapes), tuple(more)
    chosen = that_can_run(name for name in METHODS if name in {*OURS, *names})
    strongest = [name for name in chosen if name in {*OURS, *STRONGEST}]
    with use_threads(threads):
        report = {
            "environment": environment(),
            "backend": choose_backend("cpu", torch.float32),
            "threads": threads,
            "repetitions": repetitions,
            "shapes": [],
            "shapes_keeping_memory": [],
        }
        for index, shape in enumerate(shapes + more):
            methods = chosen if index < len(shapes) else strongest
            print(f"measuring T, B, H, R = {', '.join(map(str, shape))} ...", file=sys.stderr)
            for key, keep in (("shapes", False), ("shapes_keeping_memory", True)):
                entry = in_fresh_process(_measure, shape, methods, repetitions, keep)
                report[key].append(entry)
        stacks = tuple(stacks)
        for key, keep in (("stacks", True), ("stacks_as_it_comes", False)):
            report[key] = [_measure_stack(shape, repetitions, keep) for shape in stacks]
        report["lengths"] = [
            measure_length(name, StackShape(steps, 1, 1, 64, 2))
            for steps in lengths
            for name in FOR_LENGTHS
        ]
    if alone is not None and report["backend"] == "vector":
        report |= scan_benchmark.run(shapes + more, alone, repetitions)
    report["gpu"] = gpu_benchmark.run(repetitions)
    return report


def _measure_stack(shape: StackShape, repetitions: int, keep_memory: bool) -> dict[str, Any]:
    print(f"measuring a stack, T, B, in, H, L = {', '.join(map(str, shape))} ...", file=sys.stderr)
    names = tuple(STACK_METHODS) if keep_memory else ("recompute", "reversible", "lstm")
    return compare(shape, names, repetitions, keep_memory=keep_memory)


def that_can_run(names: Iterable[str]) -> list[str]:
    """Leave out what torch.compile makes where it has no C++ compiler, and say so."""
    try:
        find_compiler()
    except BuildError as error:
        print(f"irevrnn: compiled_chunks cannot be measured here: {error}", file=sys.stderr)
        return [name for name in names if name != "compiled_chunks"]
    return list(names)


def _measure(
    shape: Shape, names: Sequence[str], repetitions: int, keep_memory: bool
) -> dict[str, Any]:
    if keep_memory:
        use_caching_allocator()
    problem = make_problem(shape)
    grad_out = torch.randn(problem.z.shape)
    methods = {name: METHODS[name].build(problem) for name in names}
    saved = {name: saved_by(method, problem) for name, method in methods.items()}
    steps = {
        name: partial(method.whole_step, problem.z, grad_out) for name, method in methods.items()
    }
    times = interleaved_times(steps, repetitions)
    return {
        **shape._asdict(),
        "methods": {name: {**_times(times[name]), "saved_bytes": saved[name]} for name in names},
        **_ratios(times),
    }


def saved_by(method: Recurrence, problem: Problem) -> int:
    """Bytes saved for the backward pass beyond the input, the weights and what is returned."""
    return saved_bytes(
        lambda: method.forward(problem.z),
        exclude=(*problem, *method.weights),
        exclude_output=True,
    )


def _times(timing: Timing) -> dict[str, float]:
    return {**timing.in_milliseconds(), "repetitions": len(timing.seconds)}


def _ratios(times: dict[str, Timing]) -> dict[str, dict[str, Any]]:
    """Each method over ``scan``, and each peer module over the layer, with quartiles."""
    pairs = {name: (timing, times["scan"]) for name, timing in times.items() if name != "scan"}
    for name in ("lstm", "gru"):
        if name in times:
            pairs[f"{name}_to_layer"] = (times[name], times["layer"])
    ratios = {name: mine.ratio_to(other) for name, (mine, other) in pairs.items()}
    return {
        "ratios": {name: ratio for name, (_, ratio, _) in ratios.items()},
        "ratio_quartiles": {name: [low, high] for name, (low, _, high) in ratios.items()},
    }


# --- tables -------------------------------------------------------------------------------------


def tables(report: dict[str, Any]) -> str:
    """Write a report as text: for every shape a table of speed and memory, for both allocators."""
    head = (
        f"Forward plus backward, float32, threads: {report['threads']}, median and quartiles of "
        f"{report['repetitions']} interleaved repetitions.\n"
        "x scan: the ratio of medians, and the quartiles of the ratio within each repetition.\n"
        "Held: bytes between forward and backward, beyond input, weights and output.\n"
        f"{report['environment']['cpu']}, kernels: {report['backend']}"
    )
    parts = [head]
    for as_it_comes, keeping in zip(report["shapes"], report["shapes_keeping_memory"], strict=True):
        parts.append(_table(as_it_comes, report["repetitions"], AS_IT_COMES))
        parts.append(_table(keeping, report["repetitions"], KEEPING))
    if "floor" in report:
        parts += [f"{title}\n{_aligned(rows)}" for title, rows in scan_benchmark.tables(report)]
        if not report["two_threads"]:
            parts.append("One core, or none that can be chosen: two threads are not measured.")
    for key, allocator in (("stacks", KEEPING), ("stacks_as_it_comes", AS_IT_COMES)):
        parts += [_stack_table(entry, allocator) for entry in report[key]]
    if report["lengths"]:
        parts.append(_lengths_table(report["lengths"]))
    if report["gpu"] is None:
        parts.append("No GPU: nothing is measured there.")
    else:
        parts += _gpu_tables(report["environment"]["gpu"], report["gpu"])
    return "\n\n".join(parts)


def _gpu_tables(card: str, report: dict[str, Any]) -> list[str]:
    bandwidth = report["copy_bytes_per_second"]
    parts = [
        f"On {card}, float32, CUDA events. Of bandwidth: the bytes that the kernels have to move, "
        f"over what\ncopying a tensor of {report['copied_bytes'] / 1e9:.2f} GB reaches, "
        f"{bandwidth / 1e9:.0f} GB/s read and written."
    ]
    for entry in report["shapes"]:
        shape = ", ".join(
            f"{symbol} = {entry[field]}"
            for symbol, field in zip("TBHR", Shape._fields, strict=True)
        )
        parts.append(f"{shape}\n{_aligned(gpu_benchmark.rows(entry))}")
    return parts


def _stack_table(entry: dict[str, Any], allocator: str) -> str:
    rows = [("", "median ms", "quartiles", "x recompute", "quartiles", "saved MB")]
    for name, method in entry["methods"].items():
        low, high = entry["ratio_quartiles"][name]
        rows.append(
            (
                STACK_METHODS[name].label,
                f"{method['median_ms']:.1f}",
                f"{method['low_ms']:.1f}-{method['high_ms']:.1f}",
                f"{entry['ratios'][name]:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{method['saved_bytes'] / 1e6:.2f}",
            )
        )
    steps, batch, features, hidden, layers = (entry[field] for field in StackShape._fields)
    title = (
        f"A training step of a stack, T = {steps}, B = {batch}, in = {features}, H = {hidden}, "
        f"L = {layers}, norm='layer', last output alone ({allocator})"
    )
    lines = [title, _aligned(rows)]
    if "lstm_to_reversible" in entry["ratios"]:
        low, high = entry["ratio_quartiles"]["lstm_to_reversible"]
        ratio = entry["ratios"]["lstm_to_reversible"]
        lines.append(f"nn.LSTM over reversible: {ratio:.2f} ({low:.2f}-{high:.2f})")
    return "\n".join(lines)


def _lengths_table(entries: Sequence[dict[str, Any]]) -> str:
    rows = [("", "T", "us a step", "saved MB", "peak MB")]
    for entry in entries:
        rows.append(
            (
                STACK_METHODS[entry["method"]].label,
                f"{entry['steps']:,}",
                f"{1e6 * entry['seconds'] / entry['steps']:.2f}",
                f"{entry['saved_bytes'] / 1e6:.2f}",
                f"{entry['peak_bytes'] / 1e6:.1f}",
            )
        )
    batch, features, hidden, layers = (entries[0][field] for field in StackShape._fields[1:])
    title = f"Long sequences, B = {batch}, in = {features}, H = {hidden}, L = {layers}"
    return f"{title}\n{_aligned(rows)}"


def _table(entry: dict[str, Any], repetitions: int, allocator: str) -> str:
    steps, batch, hidden, couplings = (entry[field] for field in Shape._fields)
    sequence = 4 * steps * batch * hidden
    rows = [("", "median ms", "quartiles", "x scan", "quartiles", "saved MB", "x (T, B, H)")]
    for name, method in entry["methods"].items():
        low, high = entry["ratio_quartiles"].get(name, (1, 1))
        fewer = f" ({method['repetitions']} rep.)" if method["repetitions"] < repetitions else ""
        rows.append(
            (
                METHODS[name].label + fewer,
                f"{method['median_ms']:.1f}",
                f"{method['low_ms']:.1f}-{method['high_ms']:.1f}",
                f"{entry['ratios'].get(name, 1):.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{method['saved_bytes'] / 1e6:.2f}",
                f"{method['saved_bytes'] / sequence:.3f}",
            )
        )
    title = f"T = {steps}, B = {batch}, H = {hidden}, R = {couplings} ({allocator})"
    lines = [title, _aligned(rows)]
    modules = {k: v for k, v in entry["ratios"].items() if k.endswith("_to_layer")}
    for name, ratio in modules.items():
        low, high = entry["ratio_quartiles"][name]
        label = METHODS[name.removesuffix("_to_layer")].label
        lines.append(f"{label} over one IRevRNN layer: {ratio:.2f} ({low:.2f}-{high:.2f})")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


# --- command line -------------------------------------------------------------------------------


def _shape(text: str) -> Shape:
    try:
        shape = Shape(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not T,B,H,R, such as 784,32,128,3") from None
    if min(shape[:3]) < 1 or shape.couplings < 0:
        raise argparse.ArgumentTypeError(f"T, B and H must be at least 1, R at least 0: {text!r}")
    return shape


def _stack(text: str) -> StackShape:
    try:
        shape = StackShape(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not T,B,IN,H,L, such as 784,32,128,128,2"
        ) from None
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"T, B, IN, H and L must be at least 1: {text!r}")
    return shape


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.benchmark",
        description="Time forward plus backward of irevrnn and of what people use today, "
        "interleaved in one process, and count the bytes saved in between. Prints tables and writes "
        "JSON.",
    )
    parser.add_argument(
        "--shapes", nargs="+", type=_shape, default=SHAPES, metavar="T,B,H,R",
        help="steps, batch, hidden units and couplings of each problem (default: "
        f"{' '.join(','.join(map(str, shape)) for shape in SHAPES)})",
    )  # fmt: skip
    parser.add_argument(
        "--stacks", nargs="*", type=_stack, default=STACKS, metavar="T,B,IN,H,L",
        help="steps, batch, features, hidden units and layers of each stack that is trained under "
        f"each strategy (default: {' '.join(','.join(map(str, shape)) for shape in STACKS)})",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", nargs="*", type=_count, default=LENGTHS, metavar="T",
        help=f"steps of very long sequences (default: {' '.join(map(str, LENGTHS))})",
    )  # fmt: skip
    plan = scan_benchmark.PLAN
    for name, help in (
        ("floor", "shapes where the scan alone is compared with its floor, beside --shapes"),
        ("two-threads", "shapes where two threads are compared with one"),
        ("packed", "shapes of sequences of 1 to T steps, packed"),
    ):
        shapes = getattr(plan, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", nargs="*", type=_shape, default=shapes, metavar="T,B,H,R",
            help=f"{help} (default: {' '.join(','.join(map(str, shape)) for shape in shapes)})",
        )  # fmt: skip
    parser.add_argument(
        "--flat", nargs="*", type=_count, default=plan.flat, metavar="T",
        help="lengths at which the time of a step of the scan alone is compared (default: "
        f"{' '.join(map(str, plan.flat))})",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=_count, default=1, help="threads for PyTorch and the kernels (default: 1)"
    )
    parser.add_argument(
        "--repetitions", type=_count, default=REPETITIONS,
        help=f"interleaved rounds (default: {REPETITIONS}); a very slow method runs fewer",
    )  # fmt: skip
    parser.add_argument(
        "--peers", nargs="+", choices=[name for name in METHODS if name not in OURS],
        default=list(METHODS), metavar="NAME",
        help="what to compare with (default: all of %(choices)s)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), help="where the JSON goes "
        "(default: %(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON."""
    options = _parser().parse_args(arguments)
    report = run(
        options.shapes,
        names=options.peers,
        threads=options.threads,
        repetitions=options.repetitions,
        stacks=options.stacks,
        lengths=options.lengths,
        alone=scan_benchmark.Plan(options.floor, options.two_threads, options.flat, options.packed),
    )
    print(tables(report))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
