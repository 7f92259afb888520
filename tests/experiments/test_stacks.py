"""Stacks under each strategy compute the same thing and are measured in the same way."""

from statistics import median

import pytest
import torch

from experiments.bench import frontier
from experiments.bench.measure import in_fresh_process
from experiments.bench.stacks import NETWORKS, StackShape, make_input
from irevrnn.strategies.revolve import fewest_checkpoints

pytestmark = pytest.mark.usefixtures("kernels")
SHAPE = StackShape(50, 2, 3, 8, 2)
#: The outcome of a measurement.
FREE = {"peak_bytes": 10, "seconds": 1}
#: Ours, and how far they may be from one another: fixed-point numbers have a unit of 2^-24.
OURS = {
    "recompute": 0.0, "store": 0.0, "checkpoint": 1e-6, "autograd": 1e-5, "reversible": 1e-3,
    "store_fixed": 1e-3,
}  # fmt: skip


def outcome(name):
    """The output and all gradients of one step."""
    torch.manual_seed(0)
    network = NETWORKS[name].build(SHAPE)
    x, grad_out = make_input(SHAPE)
    for _ in range(2):  # gradients are new each time
        network.step(x, grad_out)
    return [*network.forward(x), *(p.grad for p in network.weights)]


@pytest.mark.parametrize("name", OURS)
def test_ours_compute_the_same(name):
    for x, y in zip(outcome(name), outcome("recompute"), strict=True):
        assert (x - y).norm() <= OURS[name] * y.norm()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_peers_give_every_weight_a_gradient(name):
    output, *gradients = outcome(name)
    assert output.shape == (2, 8)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_lengths_are_measured_each_in_a_process_of_its_own():
    rows = frontier.measure_lengths({"checkpoint": 2, "reversible, u = 1": 2}, 1)
    assert [(row["line"], row["steps"]) for row in rows] == [
        ("checkpoint", 100), ("reversible, u = 1", 100),
    ]  # fmt: skip
    states = frontier.BLOCKS * 2 * frontier.HIDDEN * 4
    # Of two chunks, at all ends; the zeros before the first step are one tensor.
    assert rows[0]["saved_bytes"] == 2.5 * states
    assert all(row["seconds"] > 0 and row["peak_bytes"] >= 0 for row in rows)


def test_a_size_is_measured_in_turn_and_kept(tmp_path, monkeypatch):
    seconds = iter(range(1, 100))
    monkeypatch.setattr(
        frontier, "in_fresh_process",
        lambda _, case, *__, **___: case._asdict() | {"peak_bytes": 10, "seconds": next(seconds)},
    )  # fmt: skip
    rows = frontier.measure_size(640, 1, 64, 3, tmp_path)
    assert [row["line"] for row in rows] == list(frontier.RIVALS)
    for place, row in enumerate(rows, start=1):
        turns = [place + turn * len(rows) for turn in range(3)]
        assert [run["seconds"] for run in row["runs"]] == turns
        assert row["seconds"] == median(turns)
    assert frontier.measure_size(640, 1, 64, 3, tmp_path) == rows  # as kept
    assert next(seconds) == 3 * len(rows) + 1


def test_what_takes_too_much_or_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(
        frontier, "in_fresh_process", lambda _, case, *__, **___: case._asdict() | FREE
    )
    large, long = (frontier.measure_size(*size, 1) for size in ((10**4, 64, 512), (10**7, 1, 64)))
    assert [row["line"] for row in large] == list(frontier.RIVALS[1:])
    assert [row["line"] for row in long] == [
        "checkpoint", "checkpoint, 2 rounds", "reversible, u = 1",
    ]  # fmt: skip


def test_checkpoints_are_kept_as_rounds_say():
    cases = [frontier.Case(f"checkpoint, {rounds} rounds", 960, 2) for rounds in (2, 3)]
    cases.append(frontier.Case("reversible, u = 1", 960, 2))
    *rounds, reversible = (in_fresh_process(frontier.measure, case, True) for case in cases)
    state = frontier.BLOCKS * 2 * 2 * frontier.HIDDEN * 4  # in bytes
    for row, number in zip(rounds, (2, 3), strict=True):
        kept = fewest_checkpoints(20, number)  # of chunks of 48 steps
        assert row["kept_bytes"] == kept * state
        # Beside the final states; the zeros before the first step are one tensor.
        assert row["saved_bytes"] == (kept + 0.5) * state
    assert reversible["kept_bytes"] == 0 < reversible["saved_bytes"]
