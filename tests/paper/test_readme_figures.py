"""The figures that the README quotes are those of the committed results."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
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
#: The same of the table of shapes, PyTorch as it comes.
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


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def accuracy_of(experiment):
    return f"{100 * read(f'experiments/{experiment}')['test_accuracy']['mean']:.2f}"


def mean_seconds(experiment):
    return experiment["wall_seconds"] / len(experiment["runs"])


def test_speed_and_memory():
    benchmark = read("benchmark")
    shape, keeping = benchmark["shapes"][0], benchmark["shapes_keeping_memory"][0]
    unit = 4 * shape["steps"] * shape["batch"] * shape["hidden"]
    for row, method in ROWS.items():
        wanted = (
            f"| {row} | {shape['ratios'][method]:.1f} | {keeping['ratios'][method]:.1f} "
            f"| {shape['methods'][method]['saved_bytes'] / unit:.2f} |"
        )
        assert wanted in README
    assert f"{shape['methods']['scan']['saved_bytes'] / unit:.2f} of that tensor" in README


def test_every_shape():
    shapes = read("benchmark")["shapes"]
    for row, method in SHAPE_ROWS.items():
        cells = " | ".join(f"{shape['ratios'][method]:.1f}" for shape in shapes)
        assert f"| {row} | {cells} |" in README
    names = ("steps", "batch", "hidden", "couplings")
    sizes = (", ".join(str(shape[name]) for name in names) for shape in shapes)
    assert "".join(f" ({size}) |" for size in sizes) in README


def test_stacks():
    [stack] = read("benchmark")["stacks"]
    for row, method in STACK_ROWS.items():
        saved = stack["methods"][method]["saved_bytes"] / 1e6
        assert f"| {row} | {stack['ratios'][method]:.2f} | {saved:.2f} MB |" in README


def test_lstm_against_reversible():
    benchmark = read("benchmark")
    keeping, as_it_comes = (
        benchmark[key][0]["ratios"]["lstm_to_reversible"]
        for key in ("stacks", "stacks_as_it_comes")
    )
    assert f'{keeping:.1f} times as long as `"reversible"`, and {as_it_comes:.1f} times' in README


def test_how_near_to_the_machine():
    benchmark, text = read("benchmark"), " ".join(README.split())
    flat = {row["steps"]: row["median_ns"] for row in benchmark["flatness"]["lengths"]}
    longer = 100 * (flat[1000] / flat[10**6] - 1)
    for quoted in (
        f"takes {benchmark['floor'][0]['over_floor']:.2f} times the least time",
        f"two threads are {benchmark['two_threads'][0]['speedup']:.1f} times as fast as one",
        f"a step of a thousand takes {longer:.0f} % longer than one of a million",
        f"take {benchmark['packed'][0]['ratios']['same_steps']:.2f} times as long as equal ones",
    ):
        assert quoted in text


def test_a_million_steps():
    rows = {r["method"]: r for r in read("memory")["lengths"] if r["steps"] == 10**6}
    text = " ".join(README.split())
    for method in ("reversible", "checkpoint", "recompute"):
        size, micro = rows[method]["peak_bytes"] / 1e6, rows[method]["seconds"]
        assert re.search(rf"{size:,.0f} MB\b", text) and f"({micro:.1f} µs" in text


def test_accuracy():
    mnist = read("mnist")
    quoted = re.search(r"\*\*([\d.]+) %\*\* of the ([\d,]+) test images", README)
    assert quoted
    assert quoted[1] == f"{100 * mnist['test_accuracy']:.2f}"
    assert quoted[2] == f"{mnist['data']['test_size']:,}"
    assert mnist["data_set"] == "MNIST"


def test_experiments():
    text = " ".join(README.split())
    smnist, pmnist = read("experiments/smnist"), read("experiments/pmnist")
    assert (
        f"({smnist['num_parameters']:,} parameters) get {accuracy_of('smnist')} % in ten epochs, "
        f"and {accuracy_of('pmnist')} % with the pixels in a fixed random order" in text
    )
    assert smnist["config"]["epochs"] == 10
    assert (smnist["num_seeds"], pmnist["num_seeds"]) == (3, 3)
    assert "in sixteen epochs; three seeds each." in text
    without = read("experiments/smnist-indrnn")
    assert f"without couplings (IndRNN, `relu`) gets {accuracy_of('smnist-indrnn')} %" in text
    assert (without["num_seeds"], without["config"]["epochs"]) == (1, 10)
    lstm = read("experiments/smnist-lstm")
    assert f"trained about as long, gets {accuracy_of('smnist-lstm')} %" in text
    assert mean_seconds(lstm) >= 0.9 * min(one["wall_seconds"] for one in smnist["runs"])


def test_comparisons():
    text = " ".join(README.split())
    assert f"start as oscillators gets {accuracy_of('couplings-1')} %" in text
    assert f"`relu`) {accuracy_of('couplings-0-relu')} %; three seeds each" in text
    peers = f"trained longer, gets {accuracy_of('lstm')} %, and a GRU {accuracy_of('gru')} %"
    assert f"{peers} (one seed)" in text and read("experiments/gru")["num_seeds"] == 1
    ours = mean_seconds(read("experiments/couplings-1"))
    assert min(mean_seconds(read(f"experiments/{peer}")) for peer in ("lstm", "gru")) >= ours


def test_adding():
    text = " ".join(README.split())
    ours, lstm = read("experiments/adding-irevrnn"), read("experiments/adding-lstm")
    assert f"squared error of {ours['test_squared_error']['mean']:.3f}, where" in text
    assert f"stays at {lstm['test_squared_error']['mean']:.3f} (chance" in text
    assert lstm["wall_seconds"] >= ours["wall_seconds"]


def test_copying():
    text = " ".join(README.split())
    ours, lstm = read("experiments/copy-irevrnn"), read("experiments/copy-lstm")
    assert f"{accuracy_of('copy-irevrnn')} % of the symbols come back right" in text
    assert f"`nn.LSTM` stays at {accuracy_of('copy-lstm')} % (chance is 12.5 %" in text
    assert ours["data"]["chance"] == 0.125 and lstm["wall_seconds"] >= ours["wall_seconds"]


def test_sessions():
    text = " ".join(README.split())
    sessions, session = read("experiments/sessions-reversible"), read("experiments")["session"]
    saved = {name: size / 1e6 for name, size in session["saved"].items()}
    assert f"Whole sessions of {session['steps']:,} steps" in text and session["batch"] == 8
    assert f"**{100 * sessions['test_accuracy']['mean']:.1f} %** of the exercises" in text
    assert f"holds {saved['reversible']:.2f} MB between" in text
    assert f"needs {saved['recompute']:.0f} MB, and" in text and f"{saved['lstm']:.0f} MB." in text


def test_the_profile_is_named():
    profiles = {read(name)["profile"] for name in ("benchmark", "mnist", "memory", "derivation")}
    assert len(profiles) == 1
    assert f"the `{profiles.pop()}` profile" in README


def test_action_recognition():
    watch, utkinect = read("watch"), read("utkinect")
    text = " ".join(README.split())
    figures = (
        f"**{100 * watch['test_accuracy']['mean']:.1f} %** of four-second windows",
        f"(a random forest on the same windows: {100 * watch['forest']['test_accuracy']:.1f} %)",
        f"**{100 * utkinect['test_accuracy']['mean']:.1f} %** of the actions of UTKinect-Action3D "
        f"(a random forest there: {100 * utkinect['forest']['test_accuracy']:.1f} %)",
    )
    assert all(figure in text for figure in figures)
    assert watch["profile"] == utkinect["profile"] == "paper"
    assert watch["num_seeds"] == utkinect["num_seeds"] == 3
    assert watch["config"]["frames"] / 50 == 4
