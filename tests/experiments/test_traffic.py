"""The bytes that must move are those of the tensors that are passed."""

import pytest
import torch

from experiments.bench import traffic
from irevrnn.ops import NOTHING_SAVED
from irevrnn.strategies.rules import SEGMENT
from tests.cases import make_inputs

INTERVALS = {None: NOTHING_SAVED, "store": 0, "recompute": SEGMENT}
of_a_shape = pytest.mark.parametrize("shape", [(1, 2, 3, 1), (50, 3, 7, 0), (64, 2, 5, 3)], ids=str)
of_a_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def size(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


def forward(shape, dtype, memory):
    """Inputs and outputs of the operator that runs on a GPU, here on the CPU."""
    inputs = [x.detach() for x in make_inputs(*shape, dtype)]
    options = (None, "relu", "tanh", INTERVALS[memory], False)
    return inputs, torch.ops.irevrnn.scan(*inputs, *options), options


@of_a_dtype
@of_a_shape
@pytest.mark.parametrize("memory", [None, "store", "recompute"])
def test_forward(kernels, shape, dtype, memory):
    inputs, outputs, _ = forward(shape, dtype, memory)
    assert traffic.forward_bytes(*shape, dtype, memory) == size(*inputs, *outputs)


@of_a_dtype
@of_a_shape
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_backward(kernels, shape, dtype, memory):
    (_, *rest), (out, h_n, c_n, saved), options = forward(shape, dtype, memory)
    upstream, read = (torch.ones_like(out), h_n, c_n), (out, saved, *rest)
    gradients = torch.ops.irevrnn.scan_backward(*upstream, *read, *options)
    partial_sums = 2 * shape[1] * size(*rest[2:])  # one set for each sequence, written and read
    wanted = size(*upstream, *read, *gradients) + partial_sums
    assert traffic.backward_bytes(*shape, dtype, memory) == wanted
    assert traffic.saved_by_kernel(*shape, dtype, memory) == size(saved)


def test_bytes_per_element_of_a_long_sequence():
    """For recompute, 8 + 4 / K forward and 12 + 4 / K backward."""
    shape = (16 * 10_000, 1, 1000, 1)
    elements = 16 * 10_000 * 1000
    forward = traffic.forward_bytes(*shape, torch.float32, "recompute") / elements
    backward = traffic.backward_bytes(*shape, torch.float32, "recompute") / elements
    assert forward == pytest.approx(8 + 4 / SEGMENT, abs=1e-3)
    assert backward == pytest.approx(12 + 4 / SEGMENT, abs=1e-3)


def test_another_strategy_is_refused():
    with pytest.raises(ValueError, match="memory must be one of store, recompute"):
        traffic.saved_by_kernel(1, 1, 1, 1, torch.float32, "checkpoint")
