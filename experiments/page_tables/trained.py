"""Tables of what was trained: test figures of experiments and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from experiments.catalogue import EXPERIMENTS
from experiments.page_tables.markdown import Entry, Table, count, read
from experiments.search.best import table

#: Rows of the tables: results, and what the first cell says of each.
SMALL_DIGITS = {
    "block": "gated blocks",
    "block-conserving": "gated blocks that forget nothing (u = 1)",
    "block-angles": "the same, angles that the input chooses",
    "block-decays": "decays that the input chooses, at a price of 0.5 a bit",
    "block-small": "three small gated blocks",
    **{
        name: f"three small gated blocks, {one.label}"
        for name, one in EXPERIMENTS.items()
        if one.group == "Small blocks"
    },
    "block-float": "gated blocks, in floating point",
    "block-tanh": "gated blocks, g = tanh",
    "block-lru": "gated blocks around an LRU",
}
DIGITS = {
    "smnist-block": "gated blocks, `reversible`",
    "smnist-block-conserving": "gated blocks that forget nothing (u = 1), `reversible`",
    "pmnist-block": "permuted pixels: gated blocks, `reversible`",
    "pmnist-block-conserving": "permuted pixels: two wide blocks, u = 1, `reversible`",
    "pmnist-block-forgetting": "permuted pixels: the same with units that forget, `reversible`",
    "pmnist-linoss": "permuted pixels: one block around LinOSS",
    "pmnist-lru": "permuted pixels: one block around an LRU",
}
RECORDINGS = {
    "sessions-reversible": "smartwatch, whole sessions, `reversible`",
    "digits": "spoken digits, `reversible`",
    "digits-conserving": "spoken digits, u = 1, `reversible`",
    "digits-angles": "spoken digits, u = 1, angles by input, `reversible`",
    "digits-decays": "spoken digits, decays by input, at a price of 0.5 a bit, `reversible`",
    "digits-normed": "spoken digits, with a norm before the readout and dropout, `reversible`",
    "digits-price": "the same, at a price of 1 a bit, `reversible`",
    "digits-resnet": "spoken digits, convolutional network",
    "digits-speakers": "spoken digits, unseen speakers, `reversible`",
    "ecg": "ECG, mean F1, `reversible`",
    "ecg-price": "the same, at a price of 1 a bit, with a norm before the readout",
    "ecg-conserving": "ECG, mean F1, u = 1, with that norm",
    "ecg-resnet": "ECG, mean F1, convolutional network",
    "watch": "smartwatch, windows of four seconds",
    "utkinect": "UTKinect-Action3D",
}
SELECTION = {
    "select": "angles that the input chooses, u = 1",
    "select-angles": "the same, without the gate on what is read",
    "select-fixed": "fixed angles, u = 1",
    "select-gate": "the same, with the gate",
    "select-fixed-forgets": "fixed angles, learnt decays",
    "select-decays": "fixed angles, decays that the input chooses",
    "select-decays-1": "the same, with a price of 1 a bit in the loss",
    "select-both": "angles and decays that the input chooses",
    "select-both-1": "the same, with a price of 1 a bit in the loss",
    "select-long": "4,096 steps: angles that the input chooses, u = 1",
    "select-far": "100,000 steps: angles that the input chooses, u = 1",
    "select-far-truncated": "the same, gradients through the last tenth alone",
    "select-far-frozen": "the same, fixed angles, frozen as drawn",
    "select-million": "angles that the input chooses, tested on a million steps",
    "recall": "associative recall, 4 pairs in 64 steps: angles that the input chooses, u = 1",
}
COUNTING = {
    "count-2": "modulo 2 (parity)",
    "count-3": "modulo 3",
    "count-5": "modulo 5",
    "count-2-far": "modulo 2, trained and tested on up to 10,000",
    "count-3-far": "modulo 3, the same",
    "count-5-far": "modulo 5, the same",
    "count-3-million": "modulo 3, trained on up to 10,000 and tested on a million",
    "count-3-zeros": "modulo 3, from states of zero",
    "count-2-fixed": "modulo 2, fixed angles",
}
TEXT = {
    "shakespeare": "Tiny Shakespeare: angles, decays and the gate that the input chooses",
    "reviews": "reviews of films, whole, byte by byte: fixed angles, learnt decays",
    "listops": "ListOps, nested operations on digits: fixed angles, learnt decays",
}
#: Notebooks whose results are no experiments.
NOTEBOOKS = {"watch": "05", "utkinect": "05"}
LONG_MEMORIES = {
    "adding-irevrnn": "adding, squared error",
    "copy-irevrnn": "copying, symbols right",
    "copy-long": "copying, symbols right",
    "copy-long-truncated": "the same, gradients through the last tenth, which holds no symbol",
    "copy-long-frozen": "the same, couplings frozen",
    "copy-million": "copying, symbols right",
    "adding-million": "adding, squared error",
}


def _trained(
    results: Path,
    labels: Mapping[str, str],
    columns: str = "",
    cells: Callable[[Entry], list[str]] | None = None,
) -> Table:
    """Make a row of each result, with more ``columns`` that ``cells`` fills."""
    rows = []
    for name, label in labels.items():
        result = _result(results, name)
        more = cells(result) if cells else []
        by = f"notebook {NOTEBOOKS[name]}" if name in NOTEBOOKS else f"`{name}`"
        size = f"{result['num_parameters']:,}"
        mean, span, runs = scores(result)
        test = f"{mean} ({span})" if span else mean
        rows.append([label, test, runs, *more, size, _minutes(result), by])
    head = ["", "test (lowest to highest)", "runs", *([columns] if cells else [])]
    head += ["parameters", "minutes a run", "experiment"]
    return Table("|".join(head), rows)


def _result(results: Path, name: str) -> Entry:
    """Return the result of an experiment or a notebook."""
    return read(results, name if name in NOTEBOOKS else f"experiments/{name}")


def scores(result: Entry) -> list[str]:
    """Return the mean of the test figure, its range, and the number of runs."""
    figure = result.get("figure", "accuracy")
    value = result[f"test_{figure}"]
    if not isinstance(value, Mapping):  # of a notebook with a single run
        return [score(figure, value), "", count(1, "seed")]
    runs = [count(result["num_seeds"], "seed")]
    if (folds := result["data"].get("folds", 1)) > 1:
        done = result["num_runs"] // result["num_seeds"]
        runs.insert(0, ("" if done == folds else f"{done} of ") + count(folds, "fold"))
    mean, lowest, highest = (score(figure, value[x]) for x in ("mean", "lowest", "highest"))
    lowest, highest = (text.removesuffix(" %") for text in (lowest, highest))
    span = f"{lowest} to {highest}" if result["num_runs"] > 1 else ""
    return [mean, span, ", ".join(runs)]


def score(figure: str, value: float) -> str:
    """Return a test figure as text: an accuracy as a percentage."""
    if figure == "accuracy":
        return f"{value:.2%}".replace("%", " %")
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _minutes(result: Entry) -> str:
    """Return the processor time of a run, which the oldest results do not have, and on what."""
    seconds = result.get("processor_seconds")
    time = f"{seconds / result.get('num_runs', 1) / 60:.1f}" if seconds else "not recorded"
    return f"{time}, {result['cpu'].removesuffix(' Processor').replace('(R)', '')}"


def _bits(result: Entry) -> list[str]:
    config = result["config"]
    counted = config["memory"] == "reversible" and config["activation"] == "identity"
    return [f"{result['forgotten_bits']['mean']:.2f}" if counted else ""]


def _of_recording(result: Entry) -> list[str]:
    steps = result["data"].get("sequence_length") or result["config"]["frames"]
    forest = result.get("forest")
    by_forest = score("accuracy", forest["test_accuracy"]) if forest else ""
    return [f"{steps:,}", *_bits(result), by_forest]


def _length(result: Entry) -> list[str]:
    return [f"{result['data']['sequence_length']:,}"]


#: The tables by name.
TABLES: dict[str, Callable[[Path], Table]] = {
    "small-digits": partial(
        _trained, labels=SMALL_DIGITS, columns="bits forgotten", cells=_bits
    ),
    "digits": partial(_trained, labels=DIGITS),
    "recordings": partial(
        _trained, labels=RECORDINGS, columns="steps, at most|bits forgotten|random forest",
        cells=_of_recording,
    ),
    "long-memories": partial(_trained, labels=LONG_MEMORIES, columns="steps", cells=_length),
    "selection": partial(_trained, labels=SELECTION),
    "counting": partial(_trained, labels=COUNTING),
    "search": lambda results: table(read(results, "search/selective-copy")),
    "text": partial(_trained, labels=TEXT, columns="bits forgotten", cells=_bits),
}  # fmt: skip
