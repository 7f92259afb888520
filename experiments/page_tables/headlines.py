"""The results that README.md opens with."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.page_tables.costs import FRONTIER_CHUNKS
from experiments.page_tables.markdown import Table, count, read, scientific

Row = tuple[str, str, str]


def headlines(results: Path) -> Table:
    """Tabulate the main results, each beside what it is to be compared with."""
    makers = (
        _small_digits, _large_digits, _spoken_digits, _hearts, _memory, _memory_of_several,
        _gradient, _copying, _speed,
    )  # fmt: skip
    return Table("|result|beside it", [make(results) for make in makers])


def _small_digits(results: Path) -> Row:
    accuracy, parameters = _trained(results, "block")
    small, parameters_of_small = _trained(results, "block-small")
    tanh, parameters_of_tanh = _trained(results, "tanh")
    lru, _ = _trained(results, "block-lru")
    conserving, _ = _trained(results, "block-conserving")
    return (
        "digits of 14 by 14 pixels, one pixel a step, "
        f"gated blocks with {parameters} parameters, `reversible`",
        accuracy,
        f"the same with u = 1 (nothing is forgotten): {conserving}; smaller, {parameters_of_small} "
        f"parameters: {small}; plain layers with tanh, {parameters_of_tanh} parameters, not "
        f"reversible: {tanh}; the same four blocks around LRUs, not reversed: {lru}",
    )


def _large_digits(results: Path) -> Row:
    accuracy, parameters = _trained(results, "smnist-block")
    seeds, seeds_of_conserving = (
        count(read(results, f"experiments/{name}")["num_seeds"], "seed")
        for name in ("smnist-block", "smnist-block-conserving")
    )
    conserving, _ = _trained(results, "smnist-block-conserving")
    permuted, of_permuted = _trained(results, "pmnist-block-conserving")
    forgetting, _ = _trained(results, "pmnist-block-forgetting")
    published = json.loads((results.parent / "published.json").read_text(encoding="utf-8"))
    s5 = next(row for row in published if row["name"] == "S5")
    return (
        f"digits of 28 by 28 pixels, 784 steps, {parameters} parameters, `reversible`",
        accuracy,
        f"{seeds}; with u = 1 ({seeds_of_conserving}): {conserving}; with the pixels permuted, "
        f"u = 1, {of_permuted} parameters: "
        f"{permuted}, with units that forget {forgetting} (S5 reports {s5['sequential']} and "
        f"{s5['permuted']})",
    )


def _spoken_digits(results: Path) -> Row:
    accuracy, _ = _trained(results, "digits")
    trained = read(results, "experiments/digits")
    longest, seeds = trained["data"]["sequence_length"], trained["num_seeds"]
    resnet, _ = _trained(results, "digits-resnet")
    strangers, _ = _trained(results, "digits-speakers")
    return (
        f"spoken digits, raw sound, up to {longest:,} steps, `reversible`",
        accuracy,
        f"official test set, by known speakers, {count(seeds, 'seed')} (unseen speakers: "
        f"{strangers}); a convolutional network: {resnet}",
    )


def _hearts(results: Path) -> Row:
    trained = read(results, "experiments/ecg")
    f1, longest = trained["test_mean_f1"], trained["data"]["sequence_length"]
    folds = trained["num_runs"] // trained["num_seeds"]
    resnet = read(results, "experiments/ecg-resnet")["test_mean_f1"]
    return (
        f"ECG of 9 to 61 s at 300 Hz, whole, up to {longest:,} steps, `reversible`",
        f"mean F1 {f1['mean']:.3f}",
        f"{folds} folds, not by person, {f1['lowest']:.3f} to {f1['highest']:.3f}; a convolutional "
        f"network: {resnet['mean']:.3f} ({resnet['lowest']:.3f} to {resnet['highest']:.3f}); "
        "winners of the challenge of 2017: 0.83 on hidden recordings",
    )


def _memory(results: Path) -> Row:
    found = {
        (row["method"], row["steps"], row["memories"], row["rounds"]): row
        for row in read(results, "frontier")["rows"]
        if row["batch"] == 1 and row["chunk"] in FRONTIER_CHUNKS
    }

    def cost(method: str, steps: int, memories: str, rounds: int = 0) -> str:
        row = found[method, steps, memories, rounds]
        return f"{row['peak_bytes'] / 1e6:,.0f} MB, {1e6 * row['seconds'] / steps:.1f} µs"

    usual, million = "up to 1,000 steps", 10**6
    kept, forgetting, short = (
        cost("reversible", million, memories) for memories in ("u = 1", usual, "up to 10 steps")
    )
    checkpoint, twice = (cost("checkpoint", million, usual, rounds) for rounds in (1, 2))
    recompute, lstm = (cost(method, 10**5, usual) for method in ("recompute", "lstm"))
    return (
        "memory that a training step on one sequence of 1,000,000 time steps adds, four gated "
        "blocks as initialised, `reversible`",
        f"u = 1: {kept} per time step; memories of up to 1,000 steps: {forgetting}",
        f"memories of up to 10 steps, periods of up to 20: {short}; `checkpoint`: {checkpoint}, "
        f"with two rounds {twice}; a tenth of the steps, without chunks: `recompute` {recompute}, "
        f"`nn.LSTM` {lstm}",
    )


def _memory_of_several(results: Path) -> Row:
    rows = [
        row
        for row in read(results, "frontier")["rows"]
        if row["batch"] > 1 and (row["method"] != "reversible" or row["memories"] == "u = 1")
    ]
    rows = [row for row in rows if row["steps"] == max(each["steps"] for each in rows)]
    found = {(row["method"], row["rounds"], row["chunk"]): row for row in rows}
    short, long = (choose(row["chunk"] for row in rows) for choose in (min, max))

    def cost(method: str, rounds: int, chunk: int = short) -> str:
        row = found[method, rounds, chunk]
        seconds = 1e6 * row["seconds"] / row["steps"]
        return f"{row['peak_bytes'] / 1e6:.0f} MB, {seconds:.0f} µs a step"

    longer = "with longer chunks, not measured, perhaps half the memory"
    if long > short:
        longer = f"in chunks of {long} steps {cost('checkpoint', 1, long)}"
    return (
        f"the same for {rows[0]['batch']} sequences in chunks of {short} steps, u = 1",
        cost("reversible", 0),
        f"{count(len(rows[0]['runs']), 'process')} each; `checkpoint` {cost('checkpoint', 1)} "
        f"({longer}), with two rounds {cost('checkpoint', 2)}",
    )


def _gradient(results: Path) -> Row:
    found = read(results, "inverse")
    conserving, usual = found["long_gradient_errors"].values()
    long, (*_, trained) = max(usual, key=int), sorted(found["float_gradients"], key=int)
    of_trained = found["float_gradients"][trained]

    def error(errors: dict[str, float], memory: str) -> str:
        return scientific(errors[memory])

    return (
        f"relative error of the gradient over {int(long):,} steps, four gated blocks as "
        "initialised, `reversible`",
        f"u = 1: {error(conserving[long], 'reversible')}; memories of up to 1,000 steps: "
        f"{error(usual[long], 'reversible')}",
        f"`checkpoint` in float32: {error(conserving[long], 'checkpoint')}; "
        f"{error(usual[long], 'checkpoint')}. For a trained network, u = 1, over "
        f"{int(trained):,} steps, as a share of the largest entry: "
        f"`reversible` {error(of_trained, 'reversible')}, "
        f"`recompute` {error(of_trained, 'recompute')}",
    )


def _copying(results: Path) -> Row:
    names = ("copy-long", "copy-long-truncated", "copy-million")
    long, cut, longest = (read(results, f"experiments/{name}") for name in names)
    right, wrong, most = (one["test_accuracy"]["mean"] for one in (long, cut, longest))
    length, batch = long["config"]["length"], long["config"]["batch_size"]
    return (
        f"copying ten symbols after {length:,} blank steps, u = 1, `reversible`",
        f"{100 * right:.1f} % of the symbols; after {longest['config']['length']:,}: "
        f"{100 * most:.1f} %",
        f"{count(long['num_seeds'], 'seed')}, over {longest['config']['length']:,} steps "
        f"{count(longest['num_seeds'], 'seed')}; gradients through the last "
        f"{cut['config']['gradient_steps']:,} steps alone, which reach no symbol: "
        f"{100 * wrong:.1f} % "
        f"({count(cut['num_seeds'], 'seed')}); chance {100 * long['data']['chance']:.1f} %; a "
        f"training step of {batch} sequences adds {long['peak_bytes'] / 1e6:.1f} MB on top of the "
        "batch",
    )


def _speed(results: Path) -> Row:
    measured = read(results, "benchmark")
    default, caching = (
        [one["ratios"]["lstm_to_layer"] for one in measured[shapes]]
        for shapes in ("shapes", "shapes_keeping_memory")
    )
    return (
        "speed of both passes of a layer, `recompute`, on one thread of a CPU",
        f"{min(caching):.1f} to {max(caching):.1f} times that of `nn.LSTM` of the same width",
        "`nn.LSTM` has many times the weights; both use a caching allocator (with the default one: "
        f"{min(default):.1f} to {max(default):.1f} times)",
    )


def _trained(results: Path, name: str) -> tuple[str, str]:
    """Return the accuracy and the number of parameters of an experiment."""
    run = read(results, f"experiments/{name}")
    return f"{100 * run['test_accuracy']['mean']:.2f} %", f"{run['num_parameters']:,}"
