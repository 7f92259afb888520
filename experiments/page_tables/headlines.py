"""The results that README.md opens with."""

from __future__ import annotations

import json
import math
from pathlib import Path

from experiments.page_tables.markdown import Table, read


def headlines(results: Path) -> Table:
    """Tabulate the main results, each beside what it is to be compared with."""
    trained = {
        name: read(results, f"experiments/{name}")
        for name in (
            "block",
            "block-conserving",
            "block-small",
            "block-lru",
            "tanh",
            "smnist-block",
            "pmnist-block",
            "digits",
            "digits-resnet",
        )
    }
    accuracy = {
        name: f"{100 * run['test_accuracy']['mean']:.2f} %" for name, run in trained.items()
    }
    parameters = {name: f"{run['num_parameters']:,}" for name, run in trained.items()}
    peaks = {
        (row["method"], row["memories"], row["steps"]): (
            f"{row['peak_bytes'] / 1e6:,.0f} MB, {1e6 * row['seconds'] / row['steps']:.1f} µs"
        )
        for row in read(results, "frontier")["rows"]
        if row["batch"] == 1 and row["rounds"] < 2 and row["chunk"] in (0, 1024)
    }
    usual, million = "up to 1,000 steps", 10**6
    kept, forgetting, short = (
        peaks["reversible", memories, million] for memories in ("u = 1", usual, "up to 10 steps")
    )
    checkpoint = peaks["checkpoint", usual, million]
    recompute, lstm = (peaks[method, usual, 10**5] for method in ("recompute", "lstm"))
    adding = read(results, "experiments/adding-million")
    learnt = next(e for e in adding["runs"][0]["history"] if e["val_squared_error"] < 0.01)
    length, growth, epochs = (adding["config"][key] for key in ("length", "growth", "epochs"))
    teach = math.ceil(length / growth ** (epochs - learnt["epoch"]))
    chance, error = adding["data"]["chance"], adding["test_squared_error"]["mean"]
    hearts = read(results, "experiments/ecg")
    ecg, longest = hearts["test_mean_f1"], hearts["data"]["sequence_length"]
    speed = read(results, "benchmark")
    default, caching = (
        [one["ratios"]["lstm_to_layer"] for one in speed[shapes]]
        for shapes in ("shapes", "shapes_keeping_memory")
    )
    published = json.loads((results.parent / "published.json").read_text(encoding="utf-8"))
    s5 = next(row for row in published if row["name"] == "S5")
    rows = [
        [
            "digits of 14 by 14 pixels, one pixel a step, "
            f"gated blocks with {parameters['block']} parameters, `reversible`",
            accuracy["block"],
            f"with {parameters['block-small']}: {accuracy['block-small']}; plain layers with tanh, "
            f"{parameters['tanh']}, not reversible: {accuracy['tanh']}; LRUs in the four blocks, "
            f"not reversed: {accuracy['block-lru']}",
        ],
        [
            "the same where nothing is forgotten (u = 1)",
            accuracy["block-conserving"],
            f"{parameters['block-conserving']} parameters; no forgotten bits to store",
        ],
        [
            f"digits of 28 by 28 pixels, 784 steps, {parameters['smnist-block']} parameters, "
            "`reversible`",
            accuracy["smnist-block"],
            f"one seed; with the pixels permuted: {accuracy['pmnist-block']} (S5 reports "
            f"{s5['sequential']} and {s5['permuted']})",
        ],
        ["spoken digits, raw sound, up to 18,262 steps, `reversible`", accuracy["digits"],
         f"official test set, three seeds; a convolutional network: {accuracy['digits-resnet']}"],
        [f"ECG of 9 to 61 s at 300 Hz, whole, up to {longest:,} steps, `reversible`",
         f"mean F1 {ecg['mean']:.3f}", f"five folds, {ecg['lowest']:.3f} to {ecg['highest']:.3f}; "
         "winners of the challenge of 2017: 0.83 on hidden recordings"],
        [
            "memory that a training step of 1,000,000 steps adds, four gated blocks, `reversible`",
            f"{kept} a step with u = 1; {forgetting} with memories of up to 1,000 steps",
            f"{short} with memories of up to 10; `checkpoint` {checkpoint}; for a tenth "
            f"of the steps, without chunks, `recompute` {recompute} and `nn.LSTM` {lstm}",
        ],
        [
            "adding two of 1,000,000 numbers, backpropagated through every step, u = 1",
            f"mean squared error {error:.0e}",
            f"chance {chance:.2f}; a network that adds up: sequences of {teach} steps already "
            "bring it below 0.01; one run; a training step adds "
            f"{adding['peak_bytes'] / 1e6:.1f} MB on top of the batch",
        ],
        [
            "speed of both passes of a layer, `recompute`, on one thread of a CPU",
            f"{min(caching):.1f} to {max(caching):.1f} times that of `nn.LSTM` of the same width",
            "which has many times the weights; both with a caching allocator, with the default one "
            f"{min(default):.1f} to {max(default):.1f}",
        ],
    ]  # fmt: skip
    return Table("|result|beside it", rows)
