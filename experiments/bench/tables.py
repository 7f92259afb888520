"""A report of :mod:`experiments.bench.suite` as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.bench.recurrences import METHODS, Shape
from experiments.bench.roofline import Rates
from experiments.bench.stacks import NETWORKS, StackShape
from experiments.bench.suite import allocator

#: The symbols of sizes, in the order of the fields of a shape.
SYMBOLS = {Shape: ("T", "B", "H", "R"), StackShape: ("T", "B", "in", "H", "L")}
Entry = Mapping[str, Any]


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
        parts += [_recurrences(*both) for both in zip(pair, (False, True), strict=True)]
    if "floor" in report:
        parts += _scan_alone(report)
    for key, caching in (("stacks", True), ("stacks_as_it_comes", False)):
        parts += [_stack(entry, caching) for entry in report[key]]
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


def _sizes(entry: Entry, kind: type[Shape] | type[StackShape] = Shape) -> str:
    pairs = zip(SYMBOLS[kind], kind._fields, strict=True)
    return ", ".join(f"{symbol} = {entry[field]}" for symbol, field in pairs if field in entry)


def _quartiles(entry: Entry, unit: str = "ms") -> tuple[str, str]:
    """Format the median, and the quartiles."""
    low, median, high = (f"{entry[f'{end}_{unit}']:.2f}" for end in ("low", "median", "high"))
    return median, f"{low}-{high}"


def _ratio(entry: Entry, name: str) -> tuple[str, str]:
    """Format a ratio of medians, and its quartiles; 1 where a method is compared with itself."""
    low, high = entry["ratio_quartiles"].get(name, (1, 1))
    return f"{entry['ratios'].get(name, 1):.2f}", f"{low:.2f}-{high:.2f}"


def _methods(title: str, entry: Entry, labels: Mapping[str, str], ratio: str, *notes: str) -> str:
    """Write time, ratio and, if they were counted, saved bytes of each method."""
    head = ["", "median ms", "quartiles", ratio, "quartiles"]
    rows = [
        [labels[name], *_quartiles(method), *_ratio(entry, name)]
        for name, method in entry["methods"].items()
    ]
    if all("saved_bytes" in method for method in entry["methods"].values()):
        head += ["saved MB", "x (T, B, H)"]
        sequence = 4 * entry["steps"] * entry["batch"] * entry["hidden"]
        for row, method in zip(rows, entry["methods"].values(), strict=True):
            saved = method["saved_bytes"]
            row += [f"{saved / 1e6:.2f}", f"{saved / sequence:.3f}"]
    return _table(title, head, rows, *notes)


def _recurrences(entry: Entry, caching: bool) -> str:
    notes = [
        "{} over one IRevRNN layer: {} ({})".format(METHODS[name].label, *_ratio(entry, key))
        for name, key in (("lstm", "lstm_to_layer"), ("gru", "gru_to_layer"))
        if key in entry["ratios"]
    ]
    labels = {name: method.label for name, method in METHODS.items()}
    title = f"{_sizes(entry)} ({allocator(caching)})"
    return _methods(title, entry, labels, "x scan", *notes)


def _stack(entry: Entry, caching: bool) -> str:
    sizes = _sizes(entry, StackShape)
    title = f"A training step of a stack, {sizes}, norm='layer', last output alone"
    note = "nn.LSTM over reversible: {} ({})".format(*_ratio(entry, "lstm_to_reversible"))
    labels = {name: network.label for name, network in NETWORKS.items()}
    return _methods(f"{title} ({allocator(caching)})", entry, labels, "x recompute", note)


def _lengths(entries: Sequence[Entry]) -> str:
    rows = [
        (
            NETWORKS[entry["method"]].label,
            f"{entry['steps']:,}",
            f"{1e6 * entry['seconds'] / entry['steps']:.2f}",
            f"{entry['saved_bytes'] / 1e6:.2f}",
            f"{entry['peak_bytes'] / 1e6:.1f}",
        )
        for entry in entries
    ]
    sizes = _sizes(entries[0], StackShape).partition(", ")[2]  # every row has its own T
    head = ("", "T", "us a step", "saved MB", "peak MB")
    return _table(f"Long sequences, {sizes}", head, rows)


def _scan_alone(report: Entry) -> list[str]:
    parts = [_floor(report["floor"])] if report["floor"] else []
    parts += [_threads(entry) for entry in report["two_threads"]]
    if not report["two_threads"]:
        parts.append("One core, or none that can be chosen: two threads are not measured.")
    if report["flatness"]:
        parts.append(_flatness(report["flatness"]))
    labels = {
        "packed": "packed",
        "same_steps": "as many steps, of equal length",
        "padded": "padded to the longest",
    }
    return parts + [
        _methods(f"Sequences of 1 to T steps, {_sizes(entry)}", entry, labels, "packed over it")
        for entry in report["packed"]
    ]


def _floor(entries: Sequence[Entry]) -> str:
    parts = ("floor_ms", "tanh_ms", "multiply_adds_ms", "bytes_ms", "over_floor")
    rows = [
        (_sizes(entry), *_quartiles(entry), *(f"{entry[part]:.2f}" for part in parts))
        for entry in entries
    ]
    tanh, multiply_adds, moved = (entries[0]["rates"][name] / 1e9 for name in Rates._fields)
    title = (
        "The scan over its floor, the larger of (tanh + multiply-adds) and bytes, ms, one thread\n"
        f"(highest rates measured, at the first shape: {tanh:.2f} tanh, {multiply_adds:.1f} "
        f"multiply-adds and {moved:.1f} bytes a nanosecond)"
    )
    head = ("", "scan ms", "quartiles", "floor ms", "tanh", "multiply-adds", "bytes", "x floor")
    return _table(title, head, rows)


def _threads(entry: Entry) -> str:
    labels = {
        "one": ("one thread", ""),
        "two": ("two threads", f"{entry['speedup']:.2f} times as fast as one"),
        "two_busy": (
            "two threads, another process busy on one of two cores",
            f"{entry['busy']:.2f} times the time of one alone",
        ),
    }
    rows = [
        (labels[name][0], *_quartiles(times), labels[name][1])
        for name, times in entry["methods"].items()
    ]
    return _table(f"Threads, {_sizes(entry)}", ("", "median ms", "quartiles", ""), rows)


def _flatness(entry: Entry) -> str:
    rows = [(f"{row['steps']:,}", *_quartiles(row, "ns")) for row in entry["lengths"]]
    spread = f"highest over lowest {entry['highest_to_lowest']:.2f}"
    title = f"Long and short sequences, {_sizes(entry)}: {spread}"
    return _table(title, ("T", "ns a step and unit", "quartiles"), rows)


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
        cells = [METHODS[name].label]
        for part in (method["forward"], method["both"]):
            share = f"{part['share_of_bandwidth']:.0%}" if "share_of_bandwidth" in part else ""
            cells += [f"{part['median_ms']:.2f}", share]
        saved = f"{method['saved_bytes'] / 1e6:.2f}"
        yield (*cells, f"{method['both']['median_ms'] / scan:.2f}", saved)
