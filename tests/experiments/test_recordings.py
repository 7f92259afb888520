"""The format of converted recordings: what is written comes back, and damage is named."""

import json
import os

import numpy as np
import pytest

from experiments.datasets import DataError
from experiments.datasets.recordings import (
    Description,
    Recordings,
    Rejected,
    join,
    open_recordings,
    writing,
)

ABOUT = Description("made up", "skeleton", ("wave", "jump"), 30.0, "nowhere", ("hip", "head"),
                    ((0, 1),))  # fmt: skip


def moving(length, seed=0):
    return np.random.default_rng(seed).normal(size=(length, 2, 2, 3)).astype(np.float32)


def write(folder):
    with writing(folder, ABOUT, bodies=2) as writer:
        writer.add(moving(5, 1), 0, 7, "first", camera=1)
        writer.reject("bad.txt", "no good", 3)
        writer.add(moving(2, 2), 1, 8, "second", camera=3)


def test_what_is_written_comes_back(tmp_path):
    write(tmp_path / "set")
    read = open_recordings(tmp_path / "set")
    assert isinstance(read.frames, np.memmap) and read.about == ABOUT
    np.testing.assert_array_equal(read[0], moving(5, 1))
    np.testing.assert_array_equal(read[1], moving(2, 2))
    assert read.lengths.tolist() == [5, 2] and read.labels.tolist() == [0, 1]
    assert read.subjects.tolist() == [7, 8] and read.names.tolist() == ["first", "second"]
    assert {name: column.tolist() for name, column in read.columns.items()} == {"camera": [1, 3]}
    assert read.rejected == (Rejected("bad.txt", "no good", 3),)
    assert str(read.rejected[0]) == "bad.txt, line 3: no good"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": moving(5)[:, :1]}, "frames must be"),
        ({"frames": moving(0)}, "at least one frame"),
        ({"frames": moving(5) * np.nan}, "frames must be finite"),
        ({"label": 2}, "labels must be from 0 to 1; got .2"),
        ({"name": "first"}, "name must be unique; got first twice"),
        ({"lens": 3}, "columns must be"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(tmp_path, change, message):
    with writing(tmp_path, ABOUT, bodies=2) as writer:
        writer.add(moving(1), 0, 1, "first")
        with pytest.raises(DataError, match=message):
            writer.add(**{"frames": moving(3), "label": 0, "subject": 1, "name": "next"} | change)
    assert len(open_recordings(tmp_path)) == 1


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path)
    with pytest.raises(RuntimeError), writing(tmp_path, ABOUT, bodies=2) as writer:
        writer.add(moving(1), 0, 1, "other")
        raise RuntimeError
    assert open_recordings(tmp_path).names.tolist() == ["first", "second"]
    assert sorted(os.listdir(tmp_path)) == ["frames.npy", "index.npz", "meta.json"]


def test_nothing_to_write_is_an_error_that_says_why(tmp_path):
    with pytest.raises(DataError, match="no recording; rejected: bad.txt: no good"):  # noqa: SIM117
        with writing(tmp_path, ABOUT, bodies=2) as writer:
            writer.reject("bad.txt", "no good")
    with pytest.raises(DataError, match="its conversion has not finished"):
        open_recordings(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_recordings(tmp_path / "none")


def shorten(file):
    file.write_bytes(file.read_bytes()[:-8])


def set_version(file):
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 0}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("frames.npy", shorten), ("frames.npy", os.remove), ("index.npz", shorten),
        ("index.npz", os.remove), ("meta.json", shorten), ("meta.json", set_version),
    ],
)  # fmt: skip
def test_damage_is_an_error_that_names_the_folder(tmp_path, file, damage):
    write(tmp_path)
    damage(tmp_path / file)
    with pytest.raises(DataError, match=f"{tmp_path} is damaged"):
        open_recordings(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 2])}, "labels must be from 0 to 1; got .2"),
        ({"labels": np.array([0])}, r"subjects must be int64 of shape \(1,\)"),
        ({"offsets": np.array([0, 5, 5])}, "from 0 to the 7 frames"),
        ({"offsets": np.array([0, 7, 7])}, "at least one frame"),
        ({"frames": moving(7).astype(np.float64)}, "float32"),
        ({"frames": moving(7)[:, :, :1]}, "must have 4 dimensions"),
        ({"columns": {"camera": np.array([1.0, 2.0])}}, "camera must be int64"),
    ],
)
def test_arrays_must_fit_together(change, message):
    good = vars(join(ABOUT, [moving(5), moving(2)], [0, 1], [1, 2], ["a", "b"], {}))
    with pytest.raises(DataError, match=message):
        Recordings(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "film"}, "kind must be one of"),
        ({"bones": ((0, 2),)}, "bones must connect joints 0 to 1; got"),
    ],
)
def test_a_description_must_make_sense(change, message):
    with pytest.raises(DataError, match=message):
        Description(**{**vars(ABOUT), **change})
