"""Tables of what was trained: test figures of experiments and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.catalogue import EXPERIMENTS
from experiments.forecast.training import METHODS
from experiments.page_tables.markdown import Entry, Table, count, read
from experiments.train.runs import seconds_of

#: Rows of the tables: results, and what the first cell says of each.
SMALL_DIGITS = {
    "block": "gated blocks",
    "block-conserving": "gated blocks that forget nothing (u = 1)",
    "block-small": "three small gated blocks",
    **{
        name: f"three small gated blocks, {one.label}"
        for name, one in EXPERIMENTS.items()
        if one.group == "Small blocks"
    },
    "block-float": "gated blocks, in floating point",
    "block-tanh": "gated blocks, g = tanh",
    "block-lru": "gated blocks around an LRU",
    "tanh": "three plain layers, layer norm, tanh",
    "couplings-1": "three plain layers, batch norm, tanh",
    "couplings-0-relu": "three plain layers, R = 0, batch norm, relu",
    "gru": "`nn.GRU`",
    "lstm": "`nn.LSTM`",
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
    "digits-resnet": "spoken digits, convolutional network",
    "digits-speakers": "spoken digits, unseen speakers, `reversible`",
    "ecg": "ECG, mean F1, `reversible`",
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
    "select-decays": "fixed angles, decays that the input chooses (as Mamba)",
    "select-both": "angles and decays that the input chooses",
    "select-both-1": "the same, with a price of 1 a bit in the loss",
    "select-long": "4,096 steps: angles that the input chooses, u = 1",
    "select-far": "100,000 steps: angles that the input chooses, u = 1",
    "select-far-truncated": "the same, gradients through the last tenth alone",
}
COUNTING = {
    "count-2": "modulo 2 (parity)",
    "count-3": "modulo 3",
    "count-5": "modulo 5",
    "count-3-zeros": "modulo 3, from states of zero",
    "count-2-fixed": "modulo 2, fixed angles",
}
TEXT = {"shakespeare": "angles, decays and the gate that the input chooses"}
#: Notebooks whose results are no experiments.
NOTEBOOKS = {"watch": "05", "utkinect": "05"}
#: Rows of what takes a long memory: the first cell, our experiment and that of an LSTM, if any.
LONG_MEMORIES = (
    ("adding, squared error", "adding-irevrnn", "adding-lstm"),
    ("copying, symbols right", "copy-irevrnn", "copy-lstm"),
    ("copying: `copy-long`", "copy-long"),
    ("the same, truncated: `copy-long-truncated`", "copy-long-truncated"),
    ("the same, couplings frozen: `copy-long-frozen`", "copy-long-frozen"),
    ("copying: `copy-million`", "copy-million"),
    ("adding: `adding-million`", "adding-million"),
)


def small_digits(results: Path) -> Table:
    """Tabulate digits of 14 by 14 pixels."""
    return _trained(results, SMALL_DIGITS, "bits forgotten", _bits)


def digits(results: Path) -> Table:
    """Tabulate digits of 28 by 28 pixels."""
    return _trained(results, DIGITS)


def recordings(results: Path) -> Table:
    """Tabulate recordings of movements, speech and hearts."""
    return _trained(results, RECORDINGS, "steps, at most|random forest", _length_and_forest)


def selection(results: Path) -> Table:
    """Tabulate selective copying."""
    return _trained(results, SELECTION)


def counting(results: Path) -> Table:
    """Tabulate counting."""
    return _trained(results, COUNTING)


def text(results: Path) -> Table:
    """Tabulate text."""
    return _trained(results, TEXT, "bits forgotten", _bits)


def forecast(results: Path) -> Table:
    """Compare gradients through half an hour with truncated ones."""
    done = read(results, "forecast")
    rows = [["linear predictor", *_bits_a_sample([*done["linear"].values()]), "", ""]]
    for name, method in METHODS.items():
        runs = [run for key, run in done["runs"].items() if key.startswith(f"{name}/")]
        diverged = sum(run["bits"] is None for run in runs)
        bits, updates = [f"diverged ({diverged} of {len(runs)})", ""], ""
        if not diverged:
            bits = _bits_a_sample([run["bits"] for run in runs])
            updates = f"{round(sum(run['updates'] for run in runs) / len(runs)):,}"
        rows.append([method.label, *bits, updates, f"{done['peak_bytes'][name] / 1e6:.0f} MB"])
    return Table("|bits a sample|lowest to highest|updates|peak of an update", rows)


def _bits_a_sample(bits: list[float]) -> list[str]:
    """Return the mean over recordings, and its range."""
    span = f"{min(bits):.3f} to {max(bits):.3f}" if len(bits) > 1 else ""
    return [f"{sum(bits) / len(bits):.3f}", span]


def long_memories(results: Path) -> Table:
    """Compare with an LSTM of as many parameters on tasks that take a long memory."""
    rows = []
    for label, *names in LONG_MEMORIES:
        found = [_result(results, name) for name in names]
        steps, chance = (found[0]["data"][key] for key in ("sequence_length", "chance"))
        row = [label, f"{steps:,}", score(found[0]["figure"], chance)]
        for result in found:
            row += [scores(result)[0], _minutes(result)]
        rows.append([*row, "", ""][:7])  # one without an LSTM
    return Table("|steps|chance|reversible block, u = 1|minutes|`nn.LSTM`|minutes", rows)


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
        runs.insert(0, count(folds, "fold"))
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
    by_clock = "" if result.get("processor_seconds") else " by the clock"
    return f"{seconds_of(result) / result.get('num_runs', 1) / 60:.1f}{by_clock}"


def _bits(result: Entry) -> list[str]:
    reversed_ = result["config"]["memory"] == "reversible"
    return [f"{result['forgotten_bits']['mean']:.2f}" if reversed_ else ""]


def _length_and_forest(result: Entry) -> list[str]:
    steps = result["data"].get("sequence_length") or result["config"]["frames"]
    forest = result.get("forest")
    return [f"{steps:,}", score("accuracy", forest["test_accuracy"]) if forest else ""]
