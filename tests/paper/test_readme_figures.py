"""The numbers in the tables of docs/results.md are those of the committed results."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "paper" / "results"

#: Rows of the table of speed, and the methods of benchmark.json they stand for.
ROWS = {
    "`nn.LSTM`": "lstm",
    "`nn.GRU`": "gru",
    "the cell through autograd": "autograd",
    "the cell in compiled chunks": "compiled_chunks",
    "the cell with reentrant checkpoints": "checkpoint_reentrant",
    "IndRNN in PyTorch (no couplings)": "indrnn",
}
#: The same of the table of shapes.
SHAPE_ROWS = {
    "`nn.LSTM` over `scan`": "lstm",
    "compiled chunks over `scan`": "compiled_chunks",
    "IndRNN in PyTorch over `scan`": "indrnn",
    "`nn.LSTM` over one `IRevRNN` layer": "lstm_to_layer",
}
#: The same of the table of whole stacks.
STACK_ROWS = {
    '`memory="recompute"`': "recompute",
    '`memory="store"`': "store",
    '`memory="checkpoint"`': "checkpoint",
    '`memory="reversible"`': "reversible",
    "`nn.LSTM`, two layers": "lstm",
}


#: Rows of the table of networks, and their experiments.
NETWORK_ROWS = {
    "gated blocks, `reversible`": "block",
    "gated blocks that forget nothing (u = 1), `reversible`": "block-conserving",
    "plain layers, tanh": "couplings-1",
}


def read_table():
    """Every row of the page's tables: {first cell: the others}."""
    lines = (ROOT / "docs" / "results.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {first: others for first, *others in rows}


TABLE = read_table()


def benchmark():
    return json.loads((RESULTS / "benchmark.json").read_text())


def test_speed_and_memory():
    shape, keeping = benchmark()["shapes"][0], benchmark()["shapes_keeping_memory"][0]
    unit = 4 * shape["steps"] * shape["batch"] * shape["hidden"]
    for row, method in ROWS.items():
        assert TABLE[row] == [
            f"{shape['ratios'][method]:.1f}",
            f"{keeping['ratios'][method]:.1f}",
            f"{shape['methods'][method]['saved_bytes'] / unit:.2f}",
        ]


def test_networks():
    for row, name in NETWORK_ROWS.items():
        result = json.loads((RESULTS / "experiments" / f"{name}.json").read_text())
        accuracy = {key: 100 * value for key, value in result["test_accuracy"].items() if value}
        bits = result.get("forgotten_bits")
        assert TABLE[row] == [
            f"{accuracy['mean']:.2f} %",
            f"{accuracy['lowest']:.2f} to {accuracy['highest']:.2f}",
            f"{bits['mean']:.2f}" if bits else "cannot be reversed",
            f"{result['num_parameters']:,}",
        ]


def test_every_shape():
    shapes = benchmark()["shapes"]
    names = ("steps", "batch", "hidden", "couplings")
    sizes = [", ".join(str(shape[name]) for name in names) for shape in shapes]
    assert TABLE["(T, B, H, R)"] == [f"({size})" for size in sizes]
    for row, method in SHAPE_ROWS.items():
        assert TABLE[row] == [f"{shape['ratios'][method]:.1f}" for shape in shapes]


def test_stacks():
    [stack] = benchmark()["stacks"]
    for row, method in STACK_ROWS.items():
        saved = stack["methods"][method]["saved_bytes"] / 1e6
        assert TABLE[row] == [f"{stack['ratios'][method]:.2f}", f"{saved:.2f} MB"]
