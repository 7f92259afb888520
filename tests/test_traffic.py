"""The bytes that a kernel has to move, against what its tensors hold."""

import pytest
import torch

from irevrnn import scan
from irevrnn.measure import held_bytes
from irevrnn.recurrences import Shape, make_problem
from irevrnn.traffic import element_bytes, scan_bytes

SHAPE = Shape(160, 2, 8, 3)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("memory", ["recompute", "store"])
def test_bytes_are_those_of_the_tensors_that_go_in_and_out(memory):
    problem = make_problem(SHAPE)
    held = held_bytes(lambda: scan(*problem, memory=memory), problem, exclude_output=True)
    if memory == "recompute":
        held += problem.c_0.nbytes  # the caller's: the first segment's states are not copied
    moved = 2 * problem.z.nbytes + held
    assert scan_bytes(SHAPE, memory, "forward") == moved
    assert scan_bytes(SHAPE, memory, "both") == 2 * moved + problem.z.nbytes


def test_bytes_of_an_element():
    assert element_bytes("forward", "recompute", 3) == 8.25
    assert element_bytes("backward", "store", 1, size=8) == 40
    assert element_bytes("forward", "reversible", 3) == 8
    assert element_bytes("inverse", "reversible", 3) == 32
    numbers = torch.zeros(SHAPE[:3]).numel()
    assert scan_bytes(SHAPE, "store", "forward") == numbers * element_bytes("forward", "store", 3)
