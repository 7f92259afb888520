"""A report of :mod:`experiments.bench.suite` as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.bench.recurrences import METHODS
from experiments.bench.stacks import NETWORKS

Entry = Mapping[str, Any]
#: The symbols of sizes, by the fields of a shape.
SYMBOLS = {
    "steps": "T", "batch": "B", "features": "in", "hidden": "H", "couplings": "R", "layers": "L",
}  # fmt: skip
#: What is timed beside methods.
LABELS = {
    "one": "one thread",
    "two": "two threads",
    "two_busy": "two threads, another process busy on one of two cores",
    "packed": "packed",
    "same_steps": "as many steps, of equal length",
    "padded": "padded to the longest",
}
QUARTILES = "{median_ms:.2f}|{low_ms:.2f}-{high_ms:.2f}"


def tables(report: Entry) -> str:
    """Write a report of :func:`experiments.bench.suite.run` as text: a table per measurement."""
    parts = [
        f"Forward plus backward, float32, threads: {report['threads']}.\n"
        f"Times: median and quartiles of {report['repetitions']} interleaved repetitions, fewer "
        "for a very slow method.\n"
        "Ratios: of medians, and the quartiles of the ratio within each repetition.\n"
        "Saved: bytes between forward and backward, beyond input, weights and output.\n"
        f"{report['environment']['cpu']}, kernels: {report['backend']}"
    ]
    for pair in zip(report["shapes"], report["shapes_keeping_memory"], strict=True):
        for entry, kind in zip(pair, ("default", "caching"), strict=True):
            parts.append(_methods(f"{sizes(entry)} ({kind} allocator)", entry, "x scan"))
    if "floor" in report:
        parts += _scan_alone(report)
    for key, kind in (("stacks", "caching"), ("stacks_as_it_comes", "default")):
        for entry in report[key]:
            title = (
                f"A training step of a stack ({kind} allocator), layer norm, last output alone:\n"
                f"{sizes(entry)}"
            )
            parts.append(_methods(title, entry, "x recompute"))
    if report["gpu"] is None:
        parts.append("No GPU: nothing is measured there.")
    else:
        parts += gpu_tables(report["environment"]["gpu"], report["gpu"])
    return "\n\n".join(parts)


def gpu_tables(card: str, report: Entry) -> Iterable[str]:
    """Write a table for each shape in a report of :func:`experiments.bench.gpu.measure`."""
    for entry in report["shapes"]:
        methods = {
            name: method["both"] | {"saved_bytes": method["saved_bytes"]}
            for name, method in entry["methods"].items()
        }
        yield _methods(f"On {card}, by CUDA events: {sizes(entry)}", {**entry, "methods": methods})


def _table(title: str, head: str, row: str, entries: Iterable[Entry], *notes: str) -> str:
    """Align a row for each entry; ``|`` parts the cells of the head and of a row's format."""
    cells = [head.split("|"), *(row.format(**entry).split("|") for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        aligned = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *aligned]))
    return "\n".join([title, *lines, *notes])


def sizes(entry: Entry) -> str:
    """Return the sizes of an entry, as in "T = 784, B = 32, H = 128, R = 3"."""
    return ", ".join(f"{symbol} = {entry[x]}" for x, symbol in SYMBOLS.items() if x in entry)


def _label(name: str, entry: Entry) -> str:
    """Return the label of a method: networks, which have layers, share names with recurrences."""
    methods = NETWORKS if "layers" in entry else METHODS
    return methods[name].label if name in methods else LABELS[name]


def _methods(title: str, entry: Entry, ratio: str = "", *notes: str) -> str:
    """Write the time of each method and, where they are known, its ratio and its saved bytes."""
    head, row = "|median ms|quartiles", "{label}|" + QUARTILES
    ratios, quartiles = entry.get("ratios", {}), entry.get("ratio_quartiles", {})
    if ratios:
        head, row = f"{head}|{ratio}|quartiles", row + "|{ratio:.2f}|{ends[0]:.2f}-{ends[1]:.2f}"
    if all("saved_bytes" in method for method in entry["methods"].values()):
        head, row = f"{head}|saved MB|x (T, B, H)", row + "|{saved_mb:.2f}|{sequences:.3f}"
    sequence = 4 * entry["steps"] * entry["batch"] * entry["hidden"]
    rows = []
    for name, method in entry["methods"].items():
        saved = method.get("saved_bytes", 0)
        more = {
            "label": _label(name, entry),
            "saved_mb": saved / 1e6,
            "sequences": saved / sequence,
        }
        ends = quartiles.get(name, (1, 1))  # a method compared with itself
        rows.append({**method, **more, "ratio": ratios.get(name, 1), "ends": ends})
    for name in (name for name in ratios if "_to_" in name):
        one, other = name.split("_to_")
        found = "{:.2f} ({:.2f}-{:.2f})".format(ratios[name], *quartiles[name])
        notes += (f"{_label(one, entry)} over {_label(other, entry)}: {found}",)
    return _table(title, head, row, rows, *notes)


def _scan_alone(report: Entry) -> list[str]:
    parts = []
    if report["floor"]:
        rates = {name: rate / 1e9 for name, rate in report["floor"][0]["rates"].items()}
        title = (
            "The scan and its floor, the larger of (tanh + multiply-adds) and bytes, in ms\n"
            "(highest rates measured, at the first shape, in a nanosecond: {tanh:.2f} tanh,\n"
            "{multiply_adds:.1f} multiply-adds and {bytes:.1f} bytes)"
        ).format(**rates)
        head = "|scan|quartiles|floor|tanh|multiply-adds|bytes|x floor"
        names = ("floor_ms", "tanh_ms", "multiply_adds_ms", "bytes_ms", "over_floor")
        row = "|".join(["{sizes}", QUARTILES, *(f"{{{name}:.2f}}" for name in names)])
        rows = ({**entry, "sizes": sizes(entry)} for entry in report["floor"])
        parts.append(_table(title, head, row, rows))
    for entry in report["two_threads"]:
        note = (
            f"two threads: {entry['speedup']:.2f} times as fast as one; "
            f"beside the busy process, {entry['busy']:.2f} times the time of one alone"
        )
        parts.append(_methods(f"Threads, {sizes(entry)}", entry, "", note))
    if not report["two_threads"]:
        parts.append("One core, or none that can be chosen: two threads are not measured.")
    if flat := report["flatness"]:
        title = f"Long and short sequences, {sizes(flat)}: highest over lowest "
        title += f"{flat['highest_to_lowest']:.2f}"
        row = "{steps:,}|{median_ns:.2f}|{low_ns:.2f}-{high_ns:.2f}"
        parts.append(_table(title, "T|ns a step and unit|quartiles", row, flat["lengths"]))
    for entry in report["packed"]:
        title = f"Sequences of 1 to T steps, {sizes(entry)}"
        parts.append(_methods(title, entry, "packed over it"))
    return parts
