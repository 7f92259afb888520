"""Large results lie where those of the step before lay, and what is kept for that has a limit."""

import platform
import sys
from contextlib import suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import pytest
import torch

import irevrnn
from experiments.bench.measure import in_fresh_process
from experiments.bench.recurrences import Shape, make_problem
from irevrnn.kernels.allocator import allocate, allocate_like, empty_cache, use_caching_allocator
from irevrnn.kernels.ops import load_operators

MB = 2**18  # numbers


@pytest.fixture(autouse=True)
def nothing_is_kept(kernels):
    """Blocks of the same size that other tests left would be handed out first."""
    empty_cache()


def large(numbers):
    """A fresh tensor with all its pages there."""
    return torch.ops.irevrnn.allocate(torch.empty(0), [numbers]).zero_()


def test_a_result_lies_where_the_one_before_lay(monkeypatch):
    first, second = large(8 * MB), large(8 * MB)
    place = first.data_ptr()
    view = first[100:200].fill_(7)
    del first
    third = large(8 * MB).fill_(1)
    assert view.eq(7).all() and place != third.data_ptr() != second.data_ptr()
    del view
    assert large(8 * MB - 5).data_ptr() == place
    assert second.sum() == 0 and third.sum() == len(third)
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    assert allocate(torch.empty(0), [8 * MB]).data_ptr() != place


def test_a_smaller_result_does_not_cost_a_large_one_its_place():
    """Not the first, which finds as much in use and kept as ever was, nor many of other sizes."""
    both = [large(64 * MB), large(64 * MB)]
    places = {block.data_ptr() for block in both}
    del both
    for size in range(1, 16):
        large(size * MB)
    assert {block.data_ptr() for block in [large(64 * MB), large(64 * MB)]} == places


def test_shape_and_strides_are_those_of_another():
    x = torch.empty(7, 5, 2**16)
    for like in (x, x.transpose(0, 1), x[..., ::2], x.bfloat16(), x.transpose(0, 1).double()):
        mine = allocate_like(like)
        assert (mine.shape, mine.dtype) == (like.shape, like.dtype)
        assert mine.stride() == torch.empty_like(like).stride()


def resident():
    """MB of this process that lie in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 2**10


def sizes_by_turns():
    """MB that are resident, beyond those at first, after each result, which then is dropped."""
    load_operators()
    with suppress(RuntimeError):
        torch.ops.irevrnn.allocate(torch.empty(0), [2**46])  # which never was in use
    empty_cache()
    before = resident()
    grown = []
    for size in (64, 32, 48, 8):
        large(size * MB)
        grown.append(resident() - before)
    empty_cache()
    return [*grown, resident() - before]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell")
def test_hardly_more_is_kept_than_was_once_in_use():
    first, *later, at_last = in_fresh_process(sizes_by_turns)
    assert 60 < first < 70  # kept, or it would be near 0
    assert all(mb < first + 2 for mb in later)
    assert later[0] > 30  # what does not fit beside it went, and the new block is kept
    assert at_last < 4


def test_what_cannot_be_had_is_an_error_and_no_more_than_that():
    with pytest.raises(RuntimeError, match="not enough memory|can't allocate memory"):
        torch.ops.irevrnn.allocate(torch.empty(0), [2**46])
    assert large(8 * MB).sum() == 0


def faults_of_steps(count):
    """Pages that each forward and backward pass had to get from the system."""
    problem = make_problem(Shape(512, 32, 128, 3))
    grad_out = torch.randn(problem.z.shape)
    faults = []
    for _ in range(count):
        before = getrusage(RUSAGE_SELF).ru_minflt
        irevrnn.scan(*problem)[0].backward(grad_out)
        for leaf in problem:
            leaf.grad = None
        faults.append(getrusage(RUSAGE_SELF).ru_minflt - before)
    return faults


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are counted on Linux")
def test_only_the_first_step_pays_for_fresh_pages():
    first, *_, last = in_fresh_process(faults_of_steps, 4)
    assert last < 20 < first


def faults_of_another(keep):
    """Pages that PyTorch got from the system for a tensor like one that was freed."""
    if keep:
        use_caching_allocator()
    torch.ones(16 * MB)
    before = getrusage(RUSAGE_SELF).ru_minflt
    torch.ones(16 * MB)
    return getrusage(RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_a_process_can_keep_all_that_is_freed():
    assert in_fresh_process(faults_of_another, True) < 10
    assert in_fresh_process(faults_of_another, False) > 20  # the control
