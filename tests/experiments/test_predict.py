"""Predictions of a trained network: as its test saw them, or a line where there are none."""

import json

import numpy as np
import pytest
import torch

from experiments.datasets import DataError
from experiments.predict import load, main
from experiments.tasks.mnist import MnistConfig
from experiments.tasks.signals import SignalsConfig
from experiments.train.config import ConfigError
from experiments.train.loop import train

from .fake_signals import write_own
from .test_signals import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of recordings, and in ``run`` below it a network that was trained on them."""
    folder = tmp_path_factory.mktemp("predict")
    write_own(folder / "own")
    fields = SMALL | {"lr": 3e-2, "epochs": 10}
    config = SignalsConfig.of(folder=str(folder / "own"), fold=0, out=folder / "run", **fields)
    train(config, progress=False)
    return folder


def test_recordings_are_predicted_as_the_test_saw_them(folder, capsys):
    results = json.loads((folder / "run" / "results.json").read_text())
    files = [str(folder / "own" / name) for name in results["test_names"]]
    assert main([str(folder / "run"), *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    with np.load(folder / "run" / "test.npz") as test:
        expected = np.exp(test["log_probabilities"])
    assert len(lines) == len(expected) > 2
    for line, file, row in zip(lines, files, expected, strict=True):
        name = results["class_names"][row.argmax()]
        assert line == f"{file}: {name} {row.max():.1%}"
    assert {*results["test_predictions"]} == {0, 1}  # or a constant would do


def test_an_array_is_predicted_like_its_file(folder):
    classify = load(folder / "run")
    steps = np.load(folder / "own" / "r1.npy")
    found = classify(steps)
    assert list(found) == ["calm", "fast"] and sum(found.values()) == pytest.approx(1)
    assert classify(3 * steps + 5) == pytest.approx(found, abs=1e-3)  # as for another sensor
    with pytest.raises(DataError, match="3 channels; the network was trained on 2"):
        classify(np.ones((9, 3)))


def test_what_cannot_be_predicted_has_a_line_and_the_rest_is(folder, tmp_path, capsys):
    (tmp_path / "three.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "broken.csv").write_text("x,y\n1,2\n3,\n")
    names = ["none.csv", "three.csv", "broken.csv", "notes.txt"]
    files = [str(tmp_path / name) for name in names]
    assert main([str(folder / "run"), *files, str(folder / "own" / "r1.npy")]) == 1
    shown = capsys.readouterr()
    reasons = [
        "the file cannot be read: No such file or directory",
        "3 channels; the network was trained on 2", "line 3: missing value",
        "the name must end in .csv or .npy",
    ]  # fmt: skip
    lines = [f"{file}: {reason}" for file, reason in zip(files, reasons, strict=True)]
    assert shown.err.splitlines() == lines and len(shown.out.splitlines()) == 1


def test_a_folder_without_a_network_is_named(folder, tmp_path, capsys):
    assert main([str(tmp_path), "x.csv"]) == 1
    assert f"{tmp_path} holds no trained network" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"holds several runs: choose one of {folder / 'run'}"):
        load(folder)
    (tmp_path / "best.pt").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="best.pt is damaged"):
        load(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "name the files" in capsys.readouterr().err


def test_a_network_of_another_task_or_version_is_refused(folder, tmp_path):
    state = torch.load(folder / "run" / "best.pt", weights_only=True)
    for changed in ({"config": MnistConfig.of(model="block").identity()}, {"class_names": None}):
        there = {key: x for key, x in (state | changed).items() if x is not None}
        torch.save(there, tmp_path / "best.pt")
        with pytest.raises(ConfigError, match="of another task than signals, or of an older"):
            load(tmp_path)
