"""Sessions with a smartwatch: whole, of people of their own, and one sequence for the network."""

import numpy as np
import pytest
import torch

from experiments.datasets.watch import load_watch
from experiments.sequences import Key
from experiments.tasks.action import make_parts
from experiments.tasks.sessions import Sessions, SessionsConfig
from experiments.train.loop import train
from experiments.train.runs import train_all

CPU = torch.device("cpu")
SMALL = {
    "frames": 20, "hidden_size": 8, "num_layers": 1, "epochs": 1, "sessions": 1, "batch_size": 4,
    "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return make_parts(SessionsConfig.of(**SMALL, fold=0, motion=False), load_watch())


def test_a_session_is_longer_than_ten_thousand_steps():
    task = SessionsConfig.of(fold=0).task(CPU)
    x, y = next(task.train_batches(0, 0))
    assert x.shape == (8, 12600, 12) and y.shape == (8, 14)
    assert task.read_at == tuple(range(900, 12601, 900))
    assert task.facts["sequence_length"] == 12600


def test_a_session_has_every_exercise_of_both_arms_at_its_place(parts):
    sessions = Sessions(parts.test)
    steps, labels = sessions[Key(0)]
    assert sorted(labels.tolist()) == sorted([*range(7)] * 2)
    data, recordings = parts.test, parts.test.recordings
    found = []
    for window, label in zip(steps.view(14, 20, -1), labels, strict=True):
        measured = window.numpy() * data.deviation + data.mean
        for index in np.flatnonzero(recordings.subjects == sessions.subjects[0]):
            # A left arm is turned into a right one: the signals differ by signs.
            if np.allclose(np.abs(measured), np.abs(recordings[index][:20]), atol=1e-3):
                assert recordings.labels[index] == label
                found.append(index)
    assert len(set(found)) == 14


def test_training_draws_order_and_windows_and_the_test_does_not(parts):
    train, test = Sessions(parts.train), Sessions(parts.test)
    (one, order), (other, another) = train[Key(0, 0)], train[Key(0, 1)]
    assert order.tolist() != another.tolist() and not one.equal(other)
    assert train[Key(0, 1)][0].equal(other)
    assert test[Key(1)][0].equal(test[Key(1)][0])
    assert test[Key(0)][1].tolist() != test[Key(1)][1].tolist()


def test_nobody_is_trained_on_and_tested(parts):
    train, test = Sessions(parts.train), Sessions(parts.test)
    assert len(train) == 8 and len(test) == 2
    assert not {*train.subjects} & {*test.subjects}


def test_an_epoch_has_several_sessions_of_each_person():
    config = SessionsConfig.of(**SMALL | {"sessions": 3}, fold=0)
    task = config.task(CPU)
    batches = list(task.train_batches(2, 0))
    assert len(batches) == task.steps_per_epoch == 6
    drawn = torch.cat([x for x, _ in batches])
    assert len(drawn.flatten(1).unique(dim=0)) == 24
    rest = list(task.train_batches(2, 4))
    assert len(rest) == 2 and rest[0][0].equal(batches[4][0])


@pytest.mark.parametrize("options", [
    {"model": "gru"}, {"memory": "reversible", "activation": "leaky_relu"},
], ids=str)  # fmt: skip
def test_sessions_train_and_are_judged_by_each_answer(tmp_path, options):
    results = train(SessionsConfig.of(**SMALL, **options, fold=1, out=tmp_path), progress=False)
    assert results["data"]["test_size"] == 28
    matrix = np.array(results["confusion_matrix"])
    assert matrix.sum(1).tolist() == [4] * 7
    assert results["test_accuracy"] == pytest.approx(matrix.trace() / 28)
    guesses = np.array(results["test_predictions"]) == results["test_labels"]
    assert guesses.mean() == pytest.approx(results["test_accuracy"])


def test_every_fold_is_run_and_every_person_tested(tmp_path):
    results = train_all(SessionsConfig.of(**SMALL, out=tmp_path), progress=False)
    assert results["num_runs"] == 5 and len(results["accuracy_of_subjects"]) == 10
