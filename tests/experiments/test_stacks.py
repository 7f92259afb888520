"""Stacks under each strategy compute the same thing and are measured in the same way."""

import pytest
import torch

from experiments.bench import stacks
from experiments.bench.measure import in_fresh_process
from experiments.bench.stacks import NETWORKS, StackShape, make_input

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


def test_a_length_is_measured_in_a_process_of_its_own():
    row = in_fresh_process(stacks.measure_length, "checkpoint", SHAPE)
    assert row["saved_bytes"] == 2 * 2 * 2 * 8 * 4  # 1 chunk, 2 states, 2 layers
    assert row["seconds"] > 0 and row["peak_bytes"] >= 0
