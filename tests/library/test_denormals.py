"""Gradients that underflow become zero at once: some processors slow down on denormal numbers."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irevrnn import IRevBlock, IRevStack

pytestmark = pytest.mark.usefixtures("kernels")
EVERY = pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint", "reversible"])


class CountDenormals(TorchDispatchMode):
    """Count the numbers that operators return, and those of them that are denormal."""

    numbers = denormal = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for x in tree_leaves(results):
            if "empty" in str(function) or not isinstance(x, torch.Tensor):
                continue
            if x.dtype == torch.float32:
                sizes = x.detach().contiguous().view(torch.int32) & 0x7FFFFFFF
                self.denormal += int(((sizes > 0) & (sizes < 0x00800000)).sum())
                self.numbers += x.numel()
        return results


def share_of_denormals(model):
    """Return that of a backward pass whose loss reads the last output alone."""
    output, _ = model(torch.randn(2, 3000, 1), return_sequence=False)
    with CountDenormals() as counted:
        output.square().sum().backward()
    return counted.denormal / counted.numbers


def make_stack(memory):
    blocks = [IRevBlock(16, 16, longest_memory=60) for _ in range(4)]
    return IRevStack([nn.Linear(1, 16), *blocks], memory=memory)


@EVERY
def test_a_backward_pass_makes_hardly_any(memory):
    assert share_of_denormals(make_stack(memory)) < 1e-4


def test_control_the_mode_is_not_set_for_plain_operators():
    x = torch.ones(1, requires_grad=True)
    with CountDenormals() as counted:
        y = x
        for _ in range(1000):
            y = 0.85 * y
    assert counted.denormal > 0


@EVERY
def test_the_mode_of_the_callers_thread_stays(memory):
    def flushes():
        return (torch.tensor(1e-40) * 1.0).item() == 0

    before = flushes()
    try:
        for mode in (True, False):
            torch.set_flush_denormal(mode)
            share_of_denormals(make_stack(memory))
            assert flushes() is mode
    finally:
        torch.set_flush_denormal(before)
