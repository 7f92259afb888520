"""A report of :mod:`experiments.bench.suite` as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.bench.recurrences import METHODS
from experiments.bench.stacks import NETWORKS
from experiments.bench.suite import allocator

Entry = Mapping[str, Any]
#: The symbols of sizes, by the fields of a shape.
SYMBOLS = {
    "steps": "T", "batch": "B", "features": "in", "hidden": "H", "couplings": "R", "layers": "L",
}  # fmt: skip
LABELS = {name: method.label for name, method in (METHODS | NETWORKS).items()} | {
    "one": "one thread",
    "two": "two threads",
    "two_busy": "two threads, another process busy on one of two cores",
    "packed": "packed",
    "same_steps": "as many steps, of equal length",
    "padded": "padded to the longest",
}


def tables(report: Entry) -> str:
    """Write a report of :func:`experiments.bench.suite.run` as text: a table per measurement."""
    parts = [
        f"Forward plus backward, float32, threads: {report['threads']}, median and quartiles of "
        f"{report['repetitions']} interleaved repetitions (of fewer for a very slow method).\n"
        "Ratios: of medians, and the quartiles of the ratio within each repetition.\n"
        "Saved: bytes between forward and backward, beyond input, weights and output.\n"
        f"{report['environment']['cpu']}, kernels: {report['backend']}"
    ]
    for pair in zip(report["shapes"], report["shapes_keeping_memory"], strict=True):
        for entry, caching in zip(pair, (False, True), strict=True):
            parts.append(_methods(f"{_sizes(entry)} ({allocator(caching)})", entry, "x scan"))
    if "floor" in report:
        parts += _scan_alone(report)
    for key, caching in (("stacks", True), ("stacks_as_it_comes", False)):
        for entry in report[key]:
            title = f"A training step of a stack, {_sizes(entry)}, norm='layer', last output alone"
            parts.append(_methods(f"{title} ({allocator(caching)})", entry, "x recompute"))
    if report["lengths"]:
        parts.append(_lengths(report["lengths"]))
    if report["gpu"] is None:
        parts.append("No GPU: nothing is measured there.")
    else:
        parts += gpu_tables(report["environment"]["gpu"], report["gpu"])
    return "\n\n".join(parts)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *notes: str) -> str:
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        aligned = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *aligned]))
    return "\n".join([title, *lines, *notes])


def _sizes(entry: Entry) -> str:
    return ", ".join(f"{symbol} = {entry[x]}" for x, symbol in SYMBOLS.items() if x in entry)


def _quartiles(entry: Entry, unit: str = "ms") -> tuple[str, str]:
    """Format the median, and the quartiles."""
    low, median, high = (f"{entry[f'{end}_{unit}']:.2f}" for end in ("low", "median", "high"))
    return median, f"{low}-{high}"


def _ratio(entry: Entry, name: str) -> tuple[str, str]:
    """Format a ratio of medians, and its quartiles; 1 where a method is compared with itself."""
    low, high = entry["ratio_quartiles"].get(name, (1, 1))
    return f"{entry['ratios'].get(name, 1):.2f}", f"{low:.2f}-{high:.2f}"


def _methods(title: str, entry: Entry, ratio: str, *notes: str) -> str:
    """Write the time of each method and, where they are known, its ratio and its saved bytes."""
    head, ratios = ["", "median ms", "quartiles"], entry.get("ratios", {})
    rows = [[LABELS[name], *_quartiles(method)] for name, method in entry["methods"].items()]
    saved = [x["saved_bytes"] for x in entry["methods"].values() if "saved_bytes" in x]
    if ratios:
        head += [ratio, "quartiles"]
        rows = [[*row, *_ratio(entry, x)] for row, x in zip(rows, entry["methods"], strict=True)]
    if saved:
        head += ["saved MB", "x (T, B, H)"]
        sequence = 4 * entry["steps"] * entry["batch"] * entry["hidden"]
        for row, x in zip(rows, saved, strict=True):
            row += [f"{x / 1e6:.2f}", f"{x / sequence:.3f}"]
    for one, other in (name.split("_to_") for name in ratios if "_to_" in name):
        found = "{} ({})".format(*_ratio(entry, f"{one}_to_{other}"))
        notes += (f"{LABELS[one]} over {LABELS[other]}: {found}",)
    return _table(title, head, rows, *notes)


def _lengths(entries: Sequence[Entry]) -> str:
    rows = [
        (
            LABELS[entry["method"]],
            f"{entry['steps']:,}",
            f"{1e6 * entry['seconds'] / entry['steps']:.2f}",
            f"{entry['saved_bytes'] / 1e6:.2f}",
            f"{entry['peak_bytes'] / 1e6:.1f}",
        )
        for entry in entries
    ]
    sizes = _sizes(entries[0]).partition(", ")[2]  # every row has its own T
    head = ("", "T", "us a step", "saved MB", "peak MB")
    return _table(f"Long sequences, {sizes}", head, rows)


def _scan_alone(report: Entry) -> list[str]:
    parts = [_floor(report["floor"])] if report["floor"] else []
    for entry in report["two_threads"]:
        note = (
            f"two threads: {entry['speedup']:.2f} times as fast as one; "
            f"beside the busy process, {entry['busy']:.2f} times the time of one alone"
        )
        parts.append(_methods(f"Threads, {_sizes(entry)}", entry, "", note))
    if not report["two_threads"]:
        parts.append("One core, or none that can be chosen: two threads are not measured.")
    if flat := report["flatness"]:
        rows = [(f"{row['steps']:,}", *_quartiles(row, "ns")) for row in flat["lengths"]]
        spread = f"highest over lowest {flat['highest_to_lowest']:.2f}"
        title = f"Long and short sequences, {_sizes(flat)}: {spread}"
        parts.append(_table(title, ("T", "ns a step and unit", "quartiles"), rows))
    for entry in report["packed"]:
        parts.append(
            _methods(f"Sequences of 1 to T steps, {_sizes(entry)}", entry, "packed over it")
        )
    return parts


def _floor(entries: Sequence[Entry]) -> str:
    parts = ("floor_ms", "tanh_ms", "multiply_adds_ms", "bytes_ms", "over_floor")
    rows = [
        (_sizes(entry), *_quartiles(entry), *(f"{entry[part]:.2f}" for part in parts))
        for entry in entries
    ]
    rates = {name: rate / 1e9 for name, rate in entries[0]["rates"].items()}
    title = (
        "The scan over its floor, the larger of (tanh + multiply-adds) and bytes, ms, one thread\n"
        f"(highest rates measured, at the first shape: {rates['tanh']:.2f} tanh, "
        f"{rates['multiply_adds']:.1f} multiply-adds and {rates['bytes']:.1f} bytes a nanosecond)"
    )
    head = ("", "scan ms", "quartiles", "floor ms", "tanh", "multiply-adds", "bytes", "x floor")
    return _table(title, head, rows)


def gpu_tables(card: str, report: Entry) -> list[str]:
    """Write the report of :func:`experiments.bench.gpu.measure`, with a table for each shape."""
    title = (
        f"On {card}, float32, CUDA events. Of bandwidth: the bytes that the kernels have to move, "
        f"over what\ncopying a tensor of {report['copied_bytes'] / 1e9:.2f} GB reaches, "
        f"{report['copy_bytes_per_second'] / 1e9:.0f} GB/s read and written."
    )
    head = ("", "forward ms", "of bandwidth", "both ms", "of bandwidth", "x scan", "saved MB")
    return [title, *(_table(_sizes(x), head, _gpu_rows(x["methods"])) for x in report["shapes"])]


def _gpu_rows(methods: Mapping[str, Entry]) -> Iterable[Sequence[str]]:
    scan = methods["scan"]["both"]["median_ms"]
    for name, method in methods.items():
        cells = [LABELS[name]]
        for part in (method["forward"], method["both"]):
            share = f"{part['share_of_bandwidth']:.0%}" if "share_of_bandwidth" in part else ""
            cells += [f"{part['median_ms']:.2f}", share]
        saved = f"{method['saved_bytes'] / 1e6:.2f}"
        yield (*cells, f"{method['both']['median_ms'] / scan:.2f}", saved)
