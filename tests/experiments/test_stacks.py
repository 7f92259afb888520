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
    rows = frontier.measure_lengths({"checkpoint": 2, "reversible, u = 1": 2})
    assert [(row["line"], row["steps"]) for row in rows] == [
        ("checkpoint", 100), ("reversible, u = 1", 100),
    ]  # fmt: skip
    states = frontier.BLOCKS * 2 * frontier.HIDDEN * 4
    # Of two chunks, at all ends; the zeros before the first step are one tensor.
    assert rows[0]["saved_bytes"] == 2.5 * states
    assert all(row["seconds"] > 0 and row["peak_bytes"] >= 0 for row in rows)


def test_the_closest_rivals_are_measured_in_several_processes(tmp_path, monkeypatch):
    seconds = iter(range(1, 100))
    monkeypatch.setattr(
        frontier, "in_fresh_process",
        lambda function, case, **_: case._asdict() | {"peak_bytes": 10, "seconds": next(seconds)},
    )  # fmt: skip
    rows = frontier.rows_of(640, 1, (64,), processes=3, folder=tmp_path)
    several = {(x["method"], x["rounds"], x["memories"]) for x in rows if len(x["runs"]) == 3}
    assert several == frontier.RIVALS
    assert all(len(row["runs"]) in (1, 3) for row in rows)
    for row in rows:
        assert row["seconds"] == median(run["seconds"] for run in row["runs"])
    count = next(seconds)
    assert frontier.rows_of(640, 1, (64,), processes=3, folder=tmp_path) == rows  # as kept
    assert next(seconds) == count + 1
    both = frontier.rows_of(640, 1, (64, 128), processes=3, folder=tmp_path)
    assert [row for row in both if row["chunk"] != 128] == rows
    assert next(seconds) == count + 2 + sum(len(row["runs"]) for row in both if row["chunk"] == 128)
    fewer = frontier.rows_of(640, 1, (128,), folder=tmp_path)
    assert fewer == [row for row in both if row["chunk"] != 64]


def test_of_many_steps_only_the_closest_rivals_are_measured():
    few, many = (list(frontier.cases(10**6, batch, (128,))) for batch in (1, 16))
    assert {(case.method, case.rounds, case.memories) for case in many} == frontier.RIVALS
    assert {*many} < {case._replace(batch=16) for case in few}


def test_checkpoints_are_kept_as_rounds_say():
    cases = [frontier.Case("checkpoint", 640, 2, 64, rounds) for rounds in (1, 1.5, 2)]
    one, between, two = (in_fresh_process(frontier.measure, case)["saved_bytes"] for case in cases)
    states = frontier.BLOCKS * 2 * 2 * frontier.HIDDEN * 4  # of a chunk, in bytes
    # Beside the final states; the zeros before the first step are one tensor.
    assert one == 10.5 * states
    assert between == 5.5 * states
    assert two == (fewest_checkpoints(10, 2) + 0.5) * states
