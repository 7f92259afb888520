"""The measurements of the scan alone have their entries, and the busy process is busy."""

import os
import time

import pytest

from experiments.bench import scans
from experiments.bench.measure import in_fresh_process
from experiments.bench.recurrences import Shape
from experiments.bench.roofline import Work, floor

pytestmark = pytest.mark.usefixtures("kernels")
SHAPE = Shape(40, 4, 8, 2)
TIMES = {"median_ms", "low_ms", "high_ms"}
two_cores = pytest.mark.skipif(
    len(scans.cores()) < 2, reason="there is one core, or it is not known which"
)


def check_times(entry):
    assert 0 < entry["low_ms"] <= entry["median_ms"] <= entry["high_ms"]


def test_the_floor():
    shape = Shape(1000, 4, 64, 1)  # a small one is run many times
    entry = in_fresh_process(scans.measure_floor, shape, 3, 1 << 16, threads=1)
    least = floor(shape, Work(**entry["rates"]))
    assert entry.keys() == {*Shape._fields, *TIMES, "rates", *least, "over_floor"}
    check_times(entry)
    assert {name: entry[name] for name in least} == pytest.approx(least)
    assert entry["over_floor"] == pytest.approx(entry["median_ms"] / entry["floor_ms"])


@two_cores
def test_threads():
    entry = in_fresh_process(scans.measure_threads, SHAPE, 3)
    ratios = {"speedup", "speedup_quartiles", "busy", "busy_quartiles"}
    assert entry.keys() == {*Shape._fields, "methods", *ratios}
    for times in entry["methods"].values():
        assert times.keys() == TIMES
        check_times(times)
    median = {name: times["median_ms"] for name, times in entry["methods"].items()}
    assert entry["speedup"] == pytest.approx(median["one"] / median["two"])
    assert entry["busy"] == pytest.approx(median["two_busy"] / median["one"])


@two_cores
def test_the_busy_process_is_busy_and_ends():
    with scans.busy_process() as process:
        assert seconds_of_cpu(process.pid, 0.5) > 0.05  # on a machine that others use, too
    assert process.poll() is not None


def seconds_of_cpu(pid, span):
    def used():
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(span)
    return used() - before


def test_flatness():
    entry = scans.measure_flatness((20, 60), 3)
    assert entry.keys() == {"batch", "hidden", "couplings", "lengths", "highest_to_lowest"}
    assert [row["steps"] for row in entry["lengths"]] == [20, 60]
    for row in entry["lengths"]:
        assert 0 < row["low_ns"] <= row["median_ns"] <= row["high_ns"]
    first, second = (row["median_ns"] for row in entry["lengths"])
    assert entry["highest_to_lowest"] == pytest.approx(max(first / second, second / first))


def test_packed():
    entry = scans.measure_packed(SHAPE, 3)
    assert entry.keys() == {*Shape._fields, "valid_steps", "methods", "ratios", "ratio_quartiles"}
    assert SHAPE.batch <= entry["valid_steps"] <= SHAPE.batch * SHAPE.steps
    median = {name: times["median_ms"] for name, times in entry["methods"].items()}
    assert median.keys() == {"packed", "same_steps", "padded"}
    for name in ("same_steps", "padded"):
        assert entry["ratios"][name] == pytest.approx(median["packed"] / median[name])
