"""Small runs of training: their options, and what they leave behind."""

import json

import torch

SMALL = {
    "hidden_size": 12, "num_layers": 2, "downsample": 7, "batch_size": 32, "epochs": 3, "lr": 0.02,
    "dropout": 0.1, "device": "cpu", "threads": 1,
}  # fmt: skip


def words(fields, task="mnist"):
    """Return a command line, such as ``mnist lstm --hidden-size=12``."""
    fields = {"model": "irevrnn", **fields}
    network = fields.pop("model")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    return [task, network, *options]


def bits(folder):
    """All that a run leaves behind, less how long it took and which commit made it."""
    state = torch.load(folder / "last.pt", weights_only=True)
    results = json.loads((folder / "results.json").read_text())
    del state["git_commits"], results["git_commit"], results["git_commits"]
    for row in [*state["progress"]["history"], state["progress"]["best"], *results["history"]]:
        row["seconds"] = None
    state["progress"]["seconds"] = results["wall_seconds"] = None
    state["progress"]["processor_seconds"] = results["processor_seconds"] = None
    return state, torch.load(folder / "best.pt", weights_only=True)["model"], results


def assert_same(x, y):
    if isinstance(x, torch.Tensor):
        assert x.dtype == y.dtype and torch.equal(x, y)
    elif isinstance(x, dict):
        assert x.keys() == y.keys()
        for key in x:
            assert_same(x[key], y[key])
    elif isinstance(x, list | tuple):
        assert len(x) == len(y)
        for one, other in zip(x, y, strict=True):
            assert_same(one, other)
    else:
        assert x == y
