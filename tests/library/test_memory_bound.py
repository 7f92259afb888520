"""The bytes that a scan saves for the backward pass, as an equation (eq:saved of the paper)."""

import gc
import math
import weakref
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from experiments.bench.measure import saved_bytes
from irevrnn import IRevRNN, scan
from irevrnn.kernels.ops import SEGMENT
from tests.cases import Inputs, make_inputs

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [
    *((steps, 3, 17, 3) for steps in (1, 15, 16, 17, 784)),
    *((100, *sizes) for sizes in ((1, 1, 1), (2, 64, 8), (2, 8, 0))),
]


def saved(memory: str, inputs: Inputs) -> int:
    return saved_bytes(lambda: scan(*inputs, memory=memory), exclude=inputs, exclude_output=True)


@pytest.mark.parametrize(("steps", "batch", "hidden", "couplings"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scan_holds_c_of_segments_or_two_values_a_coupling(
    steps, batch, hidden, couplings, dtype
):
    inputs, step = make_inputs(steps, batch, hidden, couplings, dtype), batch * hidden
    rows = math.ceil(steps / SEGMENT) - 1
    assert saved("recompute", inputs) == rows * step * dtype.itemsize
    assert saved("store", inputs) == 2 * couplings * steps * step * dtype.itemsize


def test_a_layer_holds_what_its_scan_holds():
    layer = IRevRNN(24, 32, batch_first=False)
    x = torch.randn(100, 4, 24, requires_grad=True)
    total = saved_bytes(lambda: layer(x), exclude=(x, *layer.parameters()), exclude_output=True)
    states = 4 * 32 * 4  # the zeros it starts from
    assert total == (math.ceil(100 / SEGMENT) - 1) * 4 * 32 * 4 + states


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_no_tensor_is_held_but_through_the_hooks(memory):
    leaves = make_inputs(40, 2, 8, 3, torch.float32)
    inputs = [x * 1 for x in leaves]
    saved: list[Tensor] = []

    def pack(x: Tensor) -> int:
        saved.append(x.clone())
        return len(saved) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
        out, _, _ = scan(*inputs, memory=memory)
    assert len(saved) == 7  # out, what is saved of the steps, and five inputs
    loss, gone = out.sum(), [weakref.ref(x.untyped_storage()) for x in (out, *inputs)]
    assert all(reference() for reference in gone)
    del out, inputs
    assert not any(reference() for reference in gone)
    loss.backward()  # copies are all that it needs
    assert all(x.grad is not None for x in leaves)


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_torch_checkpoint_lets_go_of_what_it_recomputes(memory):
    """It ends a recomputation by an exception, in the middle of saving."""
    inputs = make_inputs(48, 2, 97, 3, torch.float32)

    def sequences() -> int:
        gc.collect()
        return sum(type(x) is Tensor and x.shape[-3:] == (48, 2, 97) for x in gc.get_objects())

    for _ in range(2):  # what the first leaves for good, any later one may
        before = sequences()
        out, *states = checkpoint(partial(scan, memory=memory), *inputs, use_reentrant=False)
        states[0].sum().backward()
        del out, states
        assert sequences() <= before + 1  # and the gradient of the input
