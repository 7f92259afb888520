"""Predicting the next sample: levels, the stack whose output is bits, and the comparison."""

import json
import math
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments.datasets.recordings import Description, join
from experiments.forecast import __main__ as forecast
from experiments.forecast import training
from experiments.forecast.data import LEVELS, Levels, levels_of, quantise
from experiments.forecast.linear import linear_bits
from experiments.forecast.training import METHODS, Method, Settings, evaluate, train
from experiments.train.config import ConfigError
from irevrnn import IRevStack

pytestmark = pytest.mark.usefixtures("kernels")
TINY = Settings(width=6, hidden_size=8, num_blocks=2, minutes=0.01, longest_memory=100)


def make_recordings(count=3, steps=1200):
    generator = np.random.default_rng(0)
    waves = [
        np.sin(0.1 * np.arange(steps) + index)[:, None] + 0.05 * generator.normal(size=(steps, 1))
        for index in range(count)
    ]
    about = Description("made up", "signal", ("recording",), 1.0, "nowhere", ("x",))
    return join(about, waves, [0] * count, range(count), [f"{i}" for i in range(count)], {})


def test_levels_span_the_quantiles():
    values = quantise(np.concatenate((np.linspace(0, 1, 10_000), [1e6])))
    assert values.min() == 0 and values.max() == LEVELS - 1
    assert values[:-1].diff().min() >= 0
    assert quantise(np.full(5, 3.0)).unique().numel() == 1


def test_a_sequence_tells_the_next_level():
    [one, *_] = levels_of(make_recordings())
    x = one.sequence()[0]
    level = ((x[:, 0] + 1) * (LEVELS - 1) / 2).round().long()
    assert torch.equal(level, one.values[:-1])
    assert torch.equal((level + x[:, 1].long()) % LEVELS, one.values[1:])


def test_nobody_is_in_training_and_test_at_once():
    people = {"a": 1, "b": 2, "c": 1}
    recordings = [Levels(name, person, torch.zeros(1)) for name, person in people.items()]
    assert [one.name for one in forecast._of_others(recordings, recordings[0])] == ["b"]


def test_the_output_is_the_bits_of_the_level():
    network = TINY.network(1000)
    x = levels_of(make_recordings())[0].sequence()
    bits, _ = network(x)
    *blocks, bits_of = network.blocks
    features, _ = IRevStack(blocks)(x)
    logits = bits_of.readout(features[0, :, :-1])
    nats = F.cross_entropy(logits, x[0, :, 1].long(), reduction="none")
    torch.testing.assert_close(bits[0, :, 0], nats / np.log(2))
    assert 6 < bits.mean() < 10  # log2 of 256 levels is 8


def test_reversal_gives_the_gradient():
    gradients = []
    x = levels_of(make_recordings())[0].sequence()
    for memory in ("recompute", "reversible"):
        network = TINY.network(None)
        network.memory = memory
        network(x)[0].mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 1e-3 * one.norm()


@pytest.mark.parametrize("name", METHODS)
def test_training_lowers_the_bits(name, monkeypatch):
    # However fast the machine is, an update takes a hundredth of a second.
    clock = SimpleNamespace(process_time=partial(next, count(0, 0.01)))
    monkeypatch.setattr(training, "time", clock)
    recordings = levels_of(make_recordings())
    settings = Settings(width=8, hidden_size=8, num_blocks=1, minutes=0.04, lr=2e-2)
    network, figures = train(settings, METHODS[name], recordings[1:])
    untrained = settings.network(METHODS[name].piece)
    assert figures["updates"] > 1 and figures["seconds"] >= 2.4
    assert evaluate(network, recordings[0]) < evaluate(untrained, recordings[0]) - 0.5


def test_a_test_in_pieces_reads_one_sequence(monkeypatch):
    [one, *_] = levels_of(make_recordings())
    network = TINY.network(None)
    whole = evaluate(network, one)
    monkeypatch.setattr("experiments.forecast.training.TEST_PIECE", 100)
    assert evaluate(network, one) == pytest.approx(whole, rel=1e-4)


def test_the_linear_predictor_knows_a_sine():
    recordings = levels_of(make_recordings())
    noise = Levels("noise", 0, torch.randint(LEVELS, (1200,)))
    assert linear_bits(recordings[1:], recordings[0]) < 5.5
    assert linear_bits([noise], noise) == pytest.approx(8, abs=0.6)
    short = [Levels(one.name, one.subject, one.values[:500]) for one in recordings]
    assert linear_bits(recordings[1:], recordings[0], 500) == linear_bits(short[1:], short[0])


def test_a_learning_rate_that_diverges_is_not_chosen(tmp_path, monkeypatch):
    def train_or_diverge(settings, method, recordings):
        if settings.lr > 0.001:
            raise OverflowError("a value left the range")
        return train(settings, method, recordings)

    monkeypatch.setattr(forecast, "train", train_or_diverge)
    settings = Settings(**{**vars(TINY), "steps": 300, "minutes": 0.002})
    forecast.run(settings, levels_of(make_recordings()), [0], tmp_path / "forecast.json")
    done = json.loads((tmp_path / "forecast.json").read_text())
    for trials in done["search"].values():
        assert [trial["bits"] is None for trial in trials] == [False, True, True]
    assert all(run["bits"] < 9 for run in done["runs"].values())


@pytest.mark.filterwarnings("ignore:states of block:UserWarning")
def test_a_loss_that_is_no_number_ends_the_run(monkeypatch):
    network = TINY.network(100)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    monkeypatch.setattr(Settings, "network", lambda *_: network)
    with pytest.raises(OverflowError, match="the loss became nan"):
        train(TINY, Method("pieces", 100), levels_of(make_recordings()))


def test_the_comparison_continues_where_it_stopped(tmp_path):
    recordings, file = levels_of(make_recordings()), tmp_path / "new" / "forecast.json"
    settings = Settings(**{**vars(TINY), "steps": 300, "minutes": 0.002})
    forecast.run(settings, recordings, [0], file)
    first = json.loads(file.read_text())
    assert set(first["runs"]) == {f"{name}/0" for name in METHODS}
    assert set(first["search"]) == set(first["peak_bytes"]) == set(METHODS)
    forecast.run(settings, recordings, [0, 1], file)
    second = json.loads(file.read_text())
    assert len(second["runs"]) == 2 * len(METHODS) and len(second["linear"]) == 2
    assert len(second["git_commits"]) == 1
    assert all(second["runs"][key] == run for key, run in first["runs"].items())
    with pytest.raises(ConfigError, match="has other settings"):
        forecast.run(TINY, recordings, [0], file)
    with pytest.raises(ConfigError, match="out must be a file; got the folder"):
        forecast.run(TINY, recordings, [0], tmp_path)
    file.write_text("[]")
    with pytest.raises(ConfigError, match="is no result of a forecast"):
        forecast.run(TINY, recordings, [0], file)
