"""What is measured of the scan alone: entries say what they promise, and the neighbour is real."""

import os
import time

import pytest
import torch

from experiments.bench import scan_benchmark
from experiments.bench.recurrences import Shape
from experiments.bench.roofline import Floor, Rates, floor

pytestmark = pytest.mark.usefixtures("kernels")
SHAPE = Shape(40, 4, 8, 2)
TIMES = {"median_ms", "low_ms", "high_ms"}
two_cores = pytest.mark.skipif(
    len(scan_benchmark._cores()) < 2, reason="there is one core, or it is not known which"
)


def check_times(entry):
    assert 0 < entry["low_ms"] <= entry["median_ms"] <= entry["high_ms"]


def test_the_floor():
    entry = scan_benchmark.measure_floor(SHAPE, 3, copied=1 << 16)
    parts = {"rates", *Floor._fields, "floor_ms", "over_floor"}
    assert entry.keys() == {*Shape._fields, *TIMES, *parts}
    check_times(entry)
    least = floor(SHAPE, Rates(**entry["rates"]))
    assert entry["floor_ms"] == pytest.approx(least.floor_ms)
    assert tuple(entry[name] for name in Floor._fields) == pytest.approx(least)
    assert entry["over_floor"] == pytest.approx(entry["median_ms"] / entry["floor_ms"])
    assert entry["over_floor"] > 1


@two_cores
def test_threads():
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    entry = scan_benchmark.measure_threads(SHAPE, 3)
    ratios = {"speedup", "speedup_quartiles", "busy", "busy_quartiles"}
    assert entry.keys() == {*Shape._fields, "methods", *ratios}
    for times in entry["methods"].values():
        assert times.keys() == TIMES
        check_times(times)
    median = {name: times["median_ms"] for name, times in entry["methods"].items()}
    assert entry["speedup"] == pytest.approx(median["one"] / median["two"])
    assert entry["busy"] == pytest.approx(median["two_busy"] / median["one"])
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == (cores, threads)


def test_one_core_has_no_second_thread(monkeypatch):
    monkeypatch.setattr(scan_benchmark, "_cores", lambda: [0])
    assert scan_benchmark.measure_threads(SHAPE, 3) is None


@two_cores
def test_the_neighbour_works_when_it_is_told_to_and_ends():
    with scan_benchmark._neighbour() as neighbour:
        asleep = seconds_of_cpu(neighbour.process.pid, 0.2)
        with neighbour.busy():
            awake = seconds_of_cpu(neighbour.process.pid, 0.5)
        assert asleep < 0.05
        assert awake > 0.05  # on a machine that others use, too
    assert neighbour.process.poll() is not None


def seconds_of_cpu(pid, span):
    def used():
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(span)
    return used() - before


def test_flatness(monkeypatch):
    entry = scan_benchmark.measure_flatness((20, 60), 3)
    assert entry.keys() == {"batch", "hidden", "couplings", "lengths", "highest_to_lowest"}
    assert [row["steps"] for row in entry["lengths"]] == [20, 60]
    for row in entry["lengths"]:
        assert 0 < row["low_ns"] <= row["median_ns"] <= row["high_ns"]
    first, second = (row["median_ns"] for row in entry["lengths"])
    assert entry["highest_to_lowest"] == pytest.approx(max(first / second, second / first))


def test_packed():
    entry = scan_benchmark.measure_packed(SHAPE, 3)
    assert entry.keys() == {*Shape._fields, "valid_steps", "methods", "ratios", "ratio_quartiles"}
    assert SHAPE.batch <= entry["valid_steps"] <= SHAPE.batch * SHAPE.steps
    median = {name: times["median_ms"] for name, times in entry["methods"].items()}
    assert median.keys() == {"packed", "same_steps", "padded"}
    for name in ("same_steps", "padded"):
        assert entry["ratios"][name] == pytest.approx(median["packed"] / median[name])
