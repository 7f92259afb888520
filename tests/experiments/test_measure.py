"""Saved bytes are counted exactly, peak memory as the system sees it, and time without favour."""

import gc

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from experiments.bench import measure
from experiments.bench.measure import in_fresh_process, interleaved_times, peak_memory, saved_bytes

MEGABYTE = 10**6


def leaf(*shape: int) -> Tensor:
    return torch.ones(*shape, requires_grad=True)


# --- saved_bytes ---------------------------------------------------------------------------------


def test_a_known_graph_is_counted_exactly():
    x, y = leaf(100), leaf(100)
    # The product saves x and y, tanh its result, the sum nothing.
    assert saved_bytes(lambda: (x * y).tanh().sum()) == 3 * 100 * 4


def test_views_of_one_storage_count_once_and_in_full():
    x = leaf(100)
    assert saved_bytes(lambda: x[:10].sin() + x[50:60].sin()) == 100 * 4


def test_given_tensors_do_not_count():
    x, y = leaf(100), leaf(100)
    assert saved_bytes(lambda: (x * y).tanh().sum(), exclude=[x]) == 2 * 100 * 4
    assert saved_bytes(lambda: x[:10].sin(), exclude=[x[90:]]) == 0  # the same storage


@pytest.mark.parametrize(
    "wrap", [lambda y: y, lambda y: (y, 1), lambda y: [(None, y)], lambda y: {"y": y}]
)
def test_the_output_can_be_left_out_wherever_it_lies(wrap):
    x = leaf(100)
    assert saved_bytes(lambda: wrap(x.tanh())) == 100 * 4
    assert saved_bytes(lambda: wrap(x.tanh()), exclude_output=True) == 0


def test_a_tensor_released_before_the_end_does_not_count():
    x = leaf(100)

    def forward() -> Tensor:
        x.exp().exp()
        return x.tanh()

    assert saved_bytes(forward) == 100 * 4


def test_a_checkpoint_saves_its_input_alone():
    x = leaf(100)
    forward = lambda: checkpoint(lambda y: y.exp().exp().exp(), x.tanh(), use_reentrant=False)  # noqa: E731
    assert saved_bytes(forward) == 100 * 4  # the result of tanh, which both of them save


def test_without_a_graph_nothing_is_saved():
    assert saved_bytes(lambda: torch.ones(100).tanh()) == 0


def test_a_tensor_without_storage_on_this_machine_is_counted():
    x = torch.ones(100, device="meta", requires_grad=True)
    assert saved_bytes(lambda: x.exp()) == 100 * 4


# --- peak_memory --------------------------------------------------------------------------------


def prepare_allocation(megabytes: int):
    """Free as much before: it must not hide the later allocation."""
    torch.ones(megabytes * MEGABYTE, dtype=torch.uint8)
    return lambda: torch.ones(megabytes * MEGABYTE, dtype=torch.uint8)


def prepare_failure():
    raise LookupError("no such input")


def test_peak_memory_sees_an_allocation():
    assert peak_memory(prepare_allocation, 200) == pytest.approx(200 * MEGABYTE, abs=5 * MEGABYTE)


def test_peak_memory_raises_the_exception_of_its_process():
    with pytest.raises(LookupError, match="no such input"):
        peak_memory(prepare_failure)


def test_a_fresh_process_has_the_threads_of_this_one_or_those_it_is_given():
    assert in_fresh_process(torch.get_num_threads) == torch.get_num_threads()
    assert in_fresh_process(torch.get_num_threads, threads=3) == 3


# --- interleaved_times --------------------------------------------------------------------------


def test_methods_take_turns():
    calls: list[str] = []
    methods = {name: (lambda n=name: calls.append(n)) for name in "abc"}
    times = interleaved_times(methods, repetitions=20, warmup=1)
    rounds = [calls[i : i + 3] for i in range(3, len(calls), 3)]
    assert len(rounds) == 20
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert all(len(seconds) == 20 for seconds in times.values())


def test_a_slow_method_runs_fewer_rounds(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 10.0 * next(clock))
    times = interleaved_times({"slow": lambda: None}, repetitions=9)
    assert times["slow"].tolist() == [10.0] * measure.SLOW_REPETITIONS


def test_garbage_collection_waits_and_comes_back():
    states: list[bool] = []
    interleaved_times({"a": lambda: states.append(gc.isenabled())}, repetitions=2, warmup=1)
    assert states == [True, False, False]
    assert gc.isenabled()


def test_quartiles_and_ratios():
    mine, other = np.array([2.0, 4.0, 6.0, 8.0, 10.0]), np.array([2.0, 1.0, 2.0])
    in_ms = {"low_ms": 4e3, "median_ms": 6e3, "high_ms": 8e3}
    assert measure.quartiles(mine) == in_ms
    assert measure.quartiles(mine, "ns", 1e9)["median_ns"] == 6e9
    found = measure.summary({"mine": mine, "other": other}, {"over": ("mine", "other")})
    assert found["methods"]["mine"] == in_ms
    assert found["ratios"] == {"over": 3.0}  # of medians, 6 / 2
    assert found["ratio_quartiles"] == {"over": [2.0, 3.5]}  # within rounds 1, 4 and 3
