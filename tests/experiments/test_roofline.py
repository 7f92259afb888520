"""The floor counts the work of the recurrence, and the rates are those of real work."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.bench import roofline
from experiments.bench.measure import interleaved_times
from experiments.bench.recurrences import Shape, make_problem
from experiments.bench.roofline import Work, operators, rates_of, yardsticks
from irevrnn.kernels import reference
from irevrnn.kernels.ops import SEGMENT
from tests.cases import make_inputs

SHAPES = [Shape(1, 1, 1, 1), Shape(5, 3, 7, 1), Shape(4, 2, 3, 4)]
of_a_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
PRODUCTS = {torch.ops.aten.mul.Tensor}
SUMS = {torch.ops.aten.add.Tensor, torch.ops.aten.rsub.Scalar}
#: What hands a product on: the sum over the batch adds it to another as multiply-adds do.
PASSES_ON = {torch.ops.aten.sum.dim_IntList, torch.ops.aten.cat.default}


class Counted(TorchDispatchMode):
    """Counts tanh and multiply-adds: an addition to a product costs nothing more than that."""

    def __init__(self):
        super().__init__()
        self.tanh = self.multiply_adds = 0
        self.products = []  # kept alive, so that each is known by its identity

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        operands = args[0] if operator is torch.ops.aten.cat.default else args
        of_product = any(x is product for x in operands for product in self.products)
        if operator is torch.ops.aten.tanh.default:
            self.tanh += result.numel()
        elif operator in PRODUCTS:
            self.multiply_adds += result.numel()
            self.products.append(result)
        elif operator in SUMS and not of_product:
            self.multiply_adds += result.numel()
        elif operator in PASSES_ON and of_product:
            self.products.append(result)
        return result


def counted(function, *tensors):
    with Counted() as count, torch.no_grad():
        result = function(*tensors)
    return count, result


@of_a_shape
def test_forward_counts_what_the_reference_does(shape):
    count, _ = counted(reference.scan, *make_problem(shape))
    work = roofline.forward_work(shape)
    assert (work.tanh, work.multiply_adds) == (count.tanh, count.multiply_adds)
    assert work.bytes == roofline.forward_bytes(shape, "recompute")


@of_a_shape
def test_backward_counts_what_the_reference_does(shape):
    problem = make_problem(shape)
    _, (out, h_n, c_n) = counted(reference.scan, *problem)
    count, _ = counted(reference.scan_backward, torch.ones_like(out), h_n, c_n, out, *problem[1:])
    work = roofline.backward_work(shape)
    assert work.tanh == count.tanh
    # The gradient of h_n, which is added once, is no product of a step.
    assert work.multiply_adds == count.multiply_adds - shape.batch * shape.hidden
    assert work.bytes == roofline.backward_bytes(shape, "recompute", sums_apart=False)


@pytest.mark.parametrize("bandwidth", [1e6, 1e12])
def test_the_floor_is_the_larger_of_arithmetic_and_bytes(bandwidth):
    shape, rates = Shape(40, 3, 8, 2), Work(1e9, 1e10, bandwidth)
    forward, backward = roofline.forward_work(shape), roofline.backward_work(shape)
    found = roofline.floor(shape, rates)
    for field in Work._fields:
        amount = getattr(forward, field) + getattr(backward, field)
        assert found[f"{field}_ms"] == pytest.approx(1e3 * amount / getattr(rates, field))
    arithmetic = found["tanh_ms"] + found["multiply_adds_ms"]
    assert found["floor_ms"] == max(arithmetic, found["bytes_ms"])
    assert (found["floor_ms"] == arithmetic) == (bandwidth > 1e9)


def test_without_couplings_there_is_no_count():
    with pytest.raises(ValueError, match="couplings must be at least 1; got 0"):
        roofline.forward_work(Shape(10, 1, 1, 0))


# --- rates --------------------------------------------------------------------------------------


def test_rates_are_amounts_over_the_shortest_times(kernels):
    methods, amounts = yardsticks(copied=1000)
    assert methods.keys() == set(Work._fields)
    assert amounts.bytes == 8000
    times = {name: np.array([9.0, 2.0, 3.0]) for name in methods}
    assert rates_of(amounts, times) == tuple(amount / 2 for amount in amounts)


def test_measured_rates_are_possible_and_in_order(kernels):
    methods, amounts = yardsticks(copied=1 << 20)
    rates = rates_of(amounts, interleaved_times(methods, 3))
    assert 1e7 < rates.tanh < rates.multiply_adds < 1e12
    assert 1e8 < rates.bytes < 1e13


def test_a_yardstick_does_what_it_is_called(kernels):
    x = torch.linspace(-5, 5, 3072)
    once, twice = x.clone(), x.clone()
    operators().repeat_tanh(once, 1)
    operators().repeat_tanh(twice, 2)
    torch.testing.assert_close(once, x.tanh(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(twice, x.tanh().tanh(), rtol=1e-6, atol=1e-7)
    twice = x.clone()
    operators().repeat_multiply_add(twice, 2)
    torch.testing.assert_close(twice, x / 4 + 1.5)


@pytest.mark.parametrize("name", ["repeat_tanh", "repeat_multiply_add"])
def test_a_yardstick_refuses_what_does_not_fit(kernels, name):
    operator = getattr(operators(), name)
    with pytest.raises(ValueError, match="x must be contiguous, float32"):
        operator(torch.zeros(3072, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="x must have a multiple of"):
        operator(torch.zeros(3073), 1)


# --- bytes --------------------------------------------------------------------------------------


def size(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors)


@pytest.mark.parametrize(("memory", "interval"), [("store", 0), ("recompute", SEGMENT)])
@pytest.mark.parametrize("shape", [(1, 2, 3, 1), (50, 3, 7, 0), (64, 2, 5, 3)], ids=str)
def test_bytes_are_those_of_the_operators_tensors(kernels, shape, memory, interval):
    z, *rest = (x.detach() for x in make_inputs(*shape, torch.float32))
    options = (None, "relu", "tanh", interval, False)
    out, h_n, c_n, saved = torch.ops.irevrnn.scan(z, *rest, *options)
    forward = size(z, *rest, out, h_n, c_n, saved)
    assert roofline.forward_bytes(Shape(*shape), memory) == forward
    assert roofline.saved_by_kernel(Shape(*shape), memory) == size(saved)

    upstream, read = (torch.ones_like(out), h_n, c_n), (out, saved, *rest)
    gradients = torch.ops.irevrnn.scan_backward(*upstream, *read, *options)
    partial_sums = 2 * shape[1] * size(*rest[2:])  # one set for each sequence, written and read
    backward = size(*upstream, *read, *gradients) + partial_sums
    assert roofline.backward_bytes(Shape(*shape), memory) == backward
    without_sums = roofline.backward_bytes(Shape(*shape), memory, sums_apart=False)
    assert without_sums == backward - partial_sums


def test_another_strategy_is_refused():
    with pytest.raises(ValueError, match="memory must be one of store, recompute"):
        roofline.saved_by_kernel(Shape(1, 1, 1, 1), "checkpoint")
