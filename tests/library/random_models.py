"""Random models and budgets, and what a training step adds to a fresh process."""

import gc
import random

import torch
from torch import nn

from irevrnn import IRevBlock, IRevRNN, IRevStack, ThroughTime
from tests.library.own_network import OwnNetwork

#: Requests that once took more than their budget: padded lengths with a gradient of the input; long
#: chunks of few units; lengths in a stack.
KNOWN = (
    ("rnn", {"num_layers": 4, "num_couplings": 3, "activation": "identity"}, 4, 64, "auto", 90,
     {"batch": 16, "steps": 2500, "lengths": True, "of_input": True}),
    ("rnn", {"num_layers": 4, "num_couplings": 1, "activation": "leaky_relu"}, 16, 16, "checkpoint",
     36, {"batch": 1, "steps": 80_000}),
    ("stack", {"depth": 3}, 8, 64, "checkpoint", 36,
     {"batch": 8, "steps": 3000, "lengths": True, "last": True}),
)  # fmt: skip


def draw_case(seed):
    """A random model, strategy, budget in MB, and shape of an input."""
    draw = random.Random(seed)
    kind = draw.choice(["rnn", "stack", "stack", "lstm", "gru", "own"])
    memory = draw.choice(["auto", "checkpoint"] + ["reversible"] * (kind in ("rnn", "stack")))
    hidden, features = draw.choice([16, 64, 128]), draw.choice([1, 8, 32])
    batch = draw.choice([1, 1, 4, 16])
    steps = draw.choice([5000, 20_000, 80_000]) // (1 if kind != "own" else 10)
    input = {
        "batch": batch, "steps": max(100, steps // batch), "lengths": draw.random() < 0.3,
        "of_input": draw.random() < 0.4, "last": draw.random() < 0.4,
        "resets": draw.random() < 0.2,
    }  # fmt: skip
    options = {"depth": draw.choice([1, 2, 4])}
    if kind == "rnn":
        activation = "identity" if memory == "reversible" else draw.choice(["identity", "relu"])
        options = {
            "num_layers": draw.choice([1, 3]), "num_couplings": draw.choice([0, 1, 3]),
            "activation": activation, "norm": draw.choice([None, "layer"]),
        }  # fmt: skip
    return kind, options, features, hidden, memory, draw.choice([48, 64, 100, 200]), input


def growth_of_step(case):
    """Bytes that a step adds beside input, output and gradients, the budget, and the plan.

    Call it in a fresh process: what the process loads counts, too. The growth is None if the budget
    is refused.
    """
    from experiments.bench.measure import _peak_resident

    kind, options, features, hidden, memory, budget, input = case
    torch.manual_seed(0)
    budget *= 1_000_000
    shape = (input["batch"], input["steps"], features)
    if kind == "rnn":
        model = IRevRNN(features, hidden, memory=memory, memory_budget=budget, **options)
    elif kind == "stack":
        blocks = [IRevBlock(32, hidden) for _ in range(options["depth"])]
        model = IRevStack([nn.Linear(features, 32), *blocks], memory, budget)
    elif kind == "own":
        model = ThroughTime(OwnNetwork(features, hidden), memory, budget)
        shape = (shape[1], shape[0], features)
    else:
        network = nn.LSTM if kind == "lstm" else nn.GRU
        rnn = network(features, hidden, options["depth"], batch_first=True)
        model = ThroughTime(rnn, memory, budget)
    x = torch.randn(shape).requires_grad_(input.get("of_input", False))
    keywords = {}
    if input.get("lengths"):
        keywords["lengths"] = torch.linspace(
            input["steps"] // 2, input["steps"], input["batch"]
        ).long()
    if input.get("resets"):
        keywords["resets"] = torch.rand(shape[:2]) < 0.002
    if input.get("last") and kind in ("rnn", "stack"):
        keywords["return_sequence"] = False
    gc.collect()  # copies the pages of objects that a forked process shares with its parent
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _peak_resident()
    try:
        output, _ = model(x, **keywords)
        output.sum().backward()
    except ValueError as error:
        if "memory_budget" not in str(error):
            raise
        return None, budget, str(error)
    # The gradient of a sum takes no memory, but that of what is padded does.
    grown = _peak_resident() - before - (2 if "lengths" in keywords else 1) * output.nbytes
    grown -= sum(t.grad.nbytes for t in (x, *model.parameters()) if t.grad is not None)
    return grown, budget, model.picked
