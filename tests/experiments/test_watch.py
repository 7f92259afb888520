"""The smartwatch recordings: what the package ships, and errors when it does not."""

import importlib.util

import numpy as np
import pytest

from experiments.datasets import DataError, watch
from experiments.datasets.__main__ import main
from experiments.datasets.watch import load_watch


def test_the_recordings_are_those_described():
    recordings = load_watch()
    assert len(recordings) == 140 and recordings.about.kind == "signal"
    assert recordings.lengths.min() == 947 and recordings.lengths.max() == 2618
    assert sorted(set(recordings.subjects.tolist())) == list(range(1, 11))
    assert np.bincount(recordings.labels).tolist() == [20] * 7
    assert recordings.columns["side"].sum() == 70
    assert recordings.frames.shape[1] == 6 and np.isfinite(recordings.frames).all()


def test_acceleration_is_in_units_of_g():
    # Over ten seconds, what moves averages out, and gravity is left.
    recordings = load_watch()
    means = [np.linalg.norm(recordings[i][:500, :3].mean(0)) for i in range(len(recordings))]
    assert 0.9 < np.median(means) < 1.1


def test_the_command_says_what_there_is(capsys):
    assert main(["watch"]) == 0
    assert "140 recordings by 10 subjects" in capsys.readouterr().out


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install seglearn"):
        load_watch()


def package(folder, monkeypatch, content):
    (folder / "data").mkdir()
    content(folder / "data" / "watch_dataset.npy")
    monkeypatch.setattr(watch, "_package_folder", lambda: folder)


@pytest.mark.parametrize(
    "content",
    [
        lambda file: None,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\x93NUMPY but no more"),
        lambda file: np.save(file, np.zeros(3)),
        lambda file: np.save(file, {"X": []}),
    ],
    ids=["missing", "empty", "truncated", "numbers", "other"],
)
def test_a_damaged_file_is_an_error(tmp_path, monkeypatch, content):
    package(tmp_path, monkeypatch, content)
    with pytest.raises(DataError, match="watch_dataset.npy"):
        load_watch()


def test_another_number_of_recordings_is_an_error(tmp_path, monkeypatch):
    data = {"X": [np.zeros((5, 6))], "y": [0], "subject": [1], "side": [0.0]}
    package(tmp_path, monkeypatch, lambda file: np.save(file, data))
    with pytest.raises(DataError, match="must hold 140 finite recordings; it holds 1"):
        load_watch()
