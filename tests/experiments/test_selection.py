"""The tasks in which a network has to choose: their sequences, and networks that learn them."""

import numpy as np
import pytest
import torch

from experiments.tasks import TASKS
from experiments.tasks.mnist import MnistConfig
from experiments.tasks.selection import CountingConfig, RecallConfig, SelectiveCopyConfig
from experiments.train.config import ConfigError
from experiments.train.loop import train


def drawn(config, count=50):
    x, y = config.draw(count, np.random.default_rng(0))
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert ((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()
    return x.argmax(-1), y


def test_selective_copying():
    config = SelectiveCopyConfig.of(length=40, symbols=5, kinds=7)
    tokens, targets = drawn(config)
    assert tokens.shape == (50, 45) and (tokens[:, 40:] == 8).all()
    for row, wanted in zip(tokens[:, :40], targets, strict=True):
        assert row[row < 7].tolist() == wanted.tolist() and (row[row >= 7] == 7).all()
    places = (tokens[:, :40] < 7).nonzero()[1]
    assert len(set(places.tolist())) == 40


def test_counting():
    tokens, targets = drawn(CountingConfig.of(length=30, modulus=5))
    assert tokens.shape == targets.shape == (50, 31)
    assert (tokens[:, 0] == 5).all() and (tokens[:, 1:] < 5).all() and (targets[:, 0] == 0).all()
    assert (targets[:, 1:] == tokens[:, 1:].cumsum(1) % 5).all()


def test_recall():
    config = RecallConfig.of(length=20, pairs=4, kinds=6)
    tokens, targets = drawn(config)
    assert tokens.shape == (50, 24) and targets.shape == (50, 4)
    for row, wanted in zip(tokens, targets, strict=True):
        shown = row[:20]
        keys = (shown < 6).nonzero()[0]
        values = dict(zip(shown[keys], shown[keys + 1] - 6, strict=True))
        assert len(values) == 4 and all(0 <= value < 6 for value in values.values())
        assert [values[key] for key in row[20:]] == wanted.tolist()


@pytest.mark.parametrize(("name", "given", "message"), [
    ("selective-copy", {"length": 8}, "length must be at least 32; got 8"),
    ("recall", {"length": 8, "pairs": 5}, "length must be at least 10; got 8"),
    ("recall", {"pairs": 5, "kinds": 4}, "pairs must be at most kinds, 4; got 5"),
])  # fmt: skip
def test_sizes_that_do_not_fit(name, given, message):
    with pytest.raises(ConfigError, match=message):
        TASKS[name].of(**given)


@pytest.mark.parametrize("name", ["selective-copy", "counting", "recall"])
def test_growing_lengths_and_those_of_the_test(name):
    config = TASKS[name].of(length=64, growth=2, epochs=4, full_epochs=2, test_length=100)
    task = config.task(torch.device("cpu"))
    extra = {"selective-copy": 16, "counting": 1, "recall": 4}[name]
    lengths = [next(task.train_batches(epoch, 0))[0].shape[1] for epoch in range(4)]
    growing = [max(steps, config.shortest()) for steps in (16, 32)]
    assert lengths == [steps + extra for steps in (*growing, 64, 64)]
    for batches in (task.val_batches, task.test_batches):
        assert next(batches())[0].shape[1] == 100 + extra


def test_a_learning_rate_that_falls_as_lengths_grow(tmp_path):
    given = {"length": 40, "growth": 2, "full_epochs": 2, "epochs": 5, "batches": 1, "held_out": 1}
    config = CountingConfig.of(**given, schedule="by-length", lr=1e-3, out=tmp_path)
    rates = [row["lr"] for row in train(config, progress=False)["history"]]  # of the next epoch
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4, 0])
    with pytest.raises(ConfigError, match="schedule must be onecycle or cosine where lengths do"):
        MnistConfig.of(schedule="by-length").share_of_lr(0)


@pytest.mark.parametrize(("name", "given"), [
    ("selective-copy", {"length": 12, "symbols": 2, "kinds": 3}),
    ("counting", {"length": 8}),
    ("recall", {"length": 10, "pairs": 2, "kinds": 3}),
])  # fmt: skip
def test_a_block_learns(name, given, tmp_path):
    config = TASKS[name].of(
        **given, turns="input", forgets=False, input_gate=True, gate_lr_scale=1.0, hidden_size=24,
        width=16, lr=1e-2, batches=100, epochs=3, held_out=200, out=tmp_path,
    )  # fmt: skip
    result = train(config, progress=False)
    chance = result["data"]["chance"]
    assert result["test_accuracy"] > 0.5 * (1 + chance)
