"""The measurements on a GPU, made on the CPU with a clock that is known."""

import math

import pytest
import torch

from experiments.bench import gpu
from experiments.bench.recurrences import METHODS, Shape
from experiments.bench.roofline import backward_bytes, forward_bytes
from experiments.bench.tables import gpu_tables
from irevrnn.kernels.ops import SEGMENT

SHAPE = Shape(40, 2, 8, 3)


def half_a_second(method):
    method()
    return 0.5


@pytest.fixture
def report():
    return gpu.measure("cpu", [SHAPE], 3, half_a_second, 1000)


@pytest.mark.usefixtures("kernels")
def test_shares_are_bytes_over_time_and_bandwidth(report):
    assert report["copy_bytes_per_second"] == 2 * 4000 / 0.5
    (entry,) = report["shapes"]
    assert [entry[field] for field in Shape._fields] == list(SHAPE)
    assert list(entry["methods"]) == ["scan", "scan_store", "layer", "lstm", "gru"]
    for name, memory in (("scan", "recompute"), ("scan_store", "store")):
        forward = forward_bytes(SHAPE, memory)
        backward = backward_bytes(SHAPE, memory)
        for part, moved in (("forward", forward), ("both", forward + backward)):
            found = entry["methods"][name][part]
            assert found["median_ms"] == 500 and found["moved_bytes"] == moved
            assert found["share_of_bandwidth"] == pytest.approx(found["moved_bytes"] / 8000)
    assert "moved_bytes" not in entry["methods"]["lstm"]["both"]
    saved = entry["methods"]["scan"]["saved_bytes"]
    assert saved == (math.ceil(SHAPE.steps / SEGMENT) - 1) * 2 * 8 * 4


@pytest.mark.usefixtures("kernels")
def test_the_table_names_the_card_and_every_method(report):
    text = "\n".join(gpu_tables("a card", report))
    assert "On a card" in text and "T = 40, B = 2, H = 8, R = 3" in text
    for name in gpu.PEERS:
        assert METHODS[name].label in text


def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.run(1) is None


def test_events_are_recorded_around_the_work(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("record")

        def synchronize(self):
            said.append("wait")

        def elapsed_time(self, other):
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert gpu.event_clock(lambda: said.append("work")) == 1.5
    assert said == ["record", "work", "record", "wait"]
