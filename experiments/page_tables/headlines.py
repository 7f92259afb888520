"""The results that README.md opens with."""

from __future__ import annotations

from pathlib import Path

from experiments.page_tables.markdown import Table, read


def headlines(results: Path) -> Table:
    """Tabulate the main results, each beside what it is to be compared with."""
    accuracy = {
        name: f"{read(results, f'experiments/{name}')['test_accuracy']['mean']:.1%}".replace(
            "%", " %"
        )
        for name in ("block", "block-conserving", "couplings-1", "digits")
    }
    peaks = {
        (row["method"], row["memories"]): f"{row['peak_bytes'] / 1e6:,.0f} MB"
        for row in read(results, "frontier")["rows"]
        if (row["steps"], row["batch"]) == (10**6, 1) and row["rounds"] < 2
    }
    usual = "up to 1,000 steps"
    kept, forgetting = peaks["reversible", "u = 1"], peaks["reversible", usual]
    checkpoint, others = peaks["checkpoint", usual], peaks["torch_checkpoint", usual]
    ratios = [one["ratios"]["lstm_to_layer"] for one in read(results, "benchmark")["shapes"]]
    rows = [
        [
            "digits of 14 by 14 pixels, one pixel a step, gated blocks, `reversible`",
            accuracy["block"], f"plain layers with tanh, not reversible: {accuracy['couplings-1']}",
        ],
        ["the same where nothing is forgotten", accuracy["block-conserving"],
         "not one bit is saved"],
        ["spoken digits, raw sound, up to 18,262 steps, `reversible`", accuracy["digits"],
         "official test set, three seeds"],
        [
            "memory that a training step of 1,000,000 steps adds, four gated blocks, `reversible`",
            f"{kept} to {forgetting}",
            f"`checkpoint` {checkpoint}, `torch.utils.checkpoint` {others}",
        ],
        [
            "speed of training a layer, on one thread of a CPU",
            f"{min(ratios):.1f} to {max(ratios):.1f} times", "that of `nn.LSTM`",
        ],
    ]  # fmt: skip
    return Table("|result|beside it", rows)
