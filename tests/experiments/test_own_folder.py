"""A folder of one's own recordings: what is read, and what is named because it cannot be."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from experiments import predict
from experiments.datasets import DataError
from experiments.datasets.own_folder import as_frames, load_folder, read_recording
from experiments.train.__main__ import main

from .mutations import mutated, mutations, reasons

PAGE = Path(__file__).parents[2] / "docs" / "own-recordings.md"


@pytest.fixture
def own(tmp_path):
    (tmp_path / "labels.csv").write_text("name,label\na,up\nb.csv,down\nc,up\n")
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    (tmp_path / "b.csv").write_text("x,y\r\n-1.5,2e3\r\n\r\n")
    np.save(tmp_path / "c.npy", np.arange(6, dtype=np.int16).reshape(3, 2))
    return tmp_path


def test_recordings_are_read_with_their_labels(own):
    recordings = load_folder(own)
    assert recordings.names.tolist() == ["a.csv", "b.csv", "c.npy"] and not recordings.rejected
    assert recordings.about.class_names == ("down", "up")
    assert recordings.labels.tolist() == [1, 0, 1] and recordings.subjects.tolist() == [0, 1, 2]
    assert recordings[0].tolist() == [[1, 2], [3, 4]] and recordings[1].tolist() == [[-1.5, 2000]]
    assert recordings[2].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_groups_are_subjects(own):
    (own / "labels.csv").write_text("name,label,group\na,up,bo\nb,down,al\nc,up,bo\n")
    assert load_folder(own).subjects.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        ("0,1\n5,6\n7,8\n", [[5, 6], [7, 8]]), ("0,2\n5,6\n", [[0, 2], [5, 6]]),
        ("0\n1.5\n2.0\n", [[1.5], [2]]), ("0\n1\n2\n", [[0], [1], [2]]),
        ('"x, m","y, m"\n1,2\n', [[1, 2]]), ("red,infrared,nano\n5,6,7\n", [[5, 6, 7]]),
    ],
)  # fmt: skip
def test_a_heading_has_names_or_counts_the_columns(tmp_path, content, steps):
    (tmp_path / "a.csv").write_text(content)
    assert read_recording(tmp_path / "a.csv").tolist() == steps


def test_endings_and_accents_may_be_written_in_either_way(tmp_path):
    (tmp_path / "labels.csv").write_text("name,label\nA.CSV,up\n\u00e9,down\n", encoding="utf-8")
    for name in ("A.CSV", "e\u0301.csv"):
        (tmp_path / name).write_text("1,2\n")
    assert load_folder(tmp_path).names.tolist() == ["A.CSV", "\u00e9.csv"]


def test_an_accent_makes_no_second_class_group_or_name(own):
    rows = "a,caf\u00e9,Jos\u00e9\nb,cafe\u0301,Jose\u0301\nc,tea,Jos\u00e9\n"
    (own / "labels.csv").write_text("name,label,group\n" + rows, encoding="utf-8")
    recordings = load_folder(own)
    assert recordings.about.class_names == ("caf\u00e9", "tea")
    assert recordings.subjects.tolist() == [0, 0, 0]


def test_files_of_the_folder_itself_come_before_those_below(own):
    (own / "archive").mkdir()
    (own / "archive" / "labels.csv").write_text("name,label\na,old\n")
    (own / "archive" / "a.csv").write_text("9,9\n")
    recordings = load_folder(own)
    assert recordings.about.class_names == ("down", "up")
    assert recordings[0].tolist() == [[1, 2], [3, 4]] and len(recordings.rejected) == 2


def test_one_channel_may_be_a_plain_array(tmp_path):
    (tmp_path / "labels.csv").write_text('name,label\n"a, b",up\n')
    np.save(tmp_path / "a, b.npy", np.arange(3.0))
    assert load_folder(tmp_path)[0].tolist() == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the file holds no numbers"), ("x,y\n", "the file holds no numbers"),
        ("1,2\n\n3\n", "line 3: 1 numbers; the lines above have 2"),
        ("x,y\n1,2\n3,x\n", "line 3: 'x' is no number"), ("1,2\n1_0,2\n", "line 2: '1_0' is no"),
        ("1.0x,2\n1,2\n", "line 1: '1.0x' is no number"), ("x,y\n1,2\n3,\n", "line 3: missing val"),
        ("x1,2nd\n1,2\n", "line 1: the names of a heading begin with letters; got '2nd'"),
        (",x,y\n0,1,2\n", "the heading begins with an empty field: written with an index? use"),
        (",0\n0,1\n", "the heading begins with an empty field"), (",0.5\n1,2\n", "line 1: missing"),
        ("x;y\n1;2\n", "separated by semicolons: use"), ("1\t2\n", "separated by tabs: use commas"),
        ("1 2\n3 4\n", "separated by blanks: use commas"),
        ("x\n1,2\n", "the heading has 1 names, the lines 2 numbers: written with row names?"),
        ("x,y,z\n1,2\n", "the heading has 3 names, the lines 2 numbers"),
        ("1,3e38\n", "NaN, infinity or a number above 1e+38, too large for float32"),
        ("1,2\n1,a;b\n", "line 2: 'a;b' is no number"),
        ("1,nan\n", "NaN, infinity or a number above"), ("nan,1\n1,1", "NaN, infinity or a number"),
        ("1,inf\n", "NaN, infinity or a number above"), ("1,1e300\n", "NaN, infinity or a number"),
        ("1,2,3\n", "3 channels; most recordings have 2"), ("# 1,2\n1,2", "line 1: '# 1' is no"),
    ],
)  # fmt: skip
def test_a_bad_csv_file_is_named_and_the_rest_is_read(own, content, reason):
    (own / "a.csv").write_text(content)
    recordings = load_folder(own)
    assert recordings.names.tolist() == ["b.csv", "c.npy"]
    [found] = reasons(recordings)
    assert found.startswith(f"a.csv: {reason}") and "\n" not in found


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([["a"]]), "no array of real numbers"),
        (np.array([[1j]]), "no array of real numbers"),
        (np.array([[None]]), "no array can be read"),
        (np.ones((2, 2, 2)), "the shape is (2, 2, 2)"), (np.ones((0, 2)), "the shape is (0, 2)"),
        (np.full((2, 2), np.nan), "NaN, infinity"),
        (np.ones((2, 3)), "3 channels; most recordings have 2"),
    ],
)  # fmt: skip
def test_a_bad_array_is_named_and_the_rest_is_read(own, array, reason):
    np.save(own / "c.npy", array)
    [found] = reasons(load_folder(own))
    assert found.startswith(f"c.npy: {reason}")


def test_what_is_no_array_is_named(own):
    whole = (own / "c.npy").read_bytes()
    cut = [whole[:size] for size in (0, 5, 60, len(whole) - 1)]
    others = [b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((("]
    for content in cut + others:
        (own / "c.npy").write_bytes(content)
        [found] = reasons(load_folder(own))
        assert found.startswith("c.npy: no array can be read: ")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("a,up\nb,down\n", "c.npy: no label in labels.csv"),
        ("a,up\nb,down\nc,\n", "labels.csv, line 4: the label is empty"),
        ("a,up\nb,down\n,up\n", "labels.csv, line 4: the name is empty"),
        ("a,up\nb,down\nc,up,x\n", "labels.csv, line 4: expected 2 fields; got 'c,up,x'"),
        (
            "a,up\nb,down\nc,up\nc,up\n",
            "labels.csv, line 5: a second label of c, after that in line 4",
        ),
        ("a,up\nb,down\nc,up\nc.npy,up\n", "c.npy: more than one label or file of this name"),
        ("a,up\nb,down\nd,up\n", "labels.csv, line 4: there is no file d"),
        ("a,up\nb,down\nx/c.npy,up\n", "labels.csv, line 4: there is no file x/c.npy: names"),
    ],
)
def test_a_bad_label_is_named_and_the_rest_is_read(own, labels, reason):
    (own / "labels.csv").write_text("name,label\n" + labels)
    recordings = load_folder(own)
    assert recordings.names.tolist() == ["a.csv", "b.csv"]
    assert any(one.startswith(reason) for one in reasons(recordings))
    if "line 4: the label" in reason or "line 5: a second" in reason:
        assert len(recordings.rejected) == 1  # one fault, one line


def test_a_name_of_two_files_is_named(own):
    np.save(own / "a.npy", np.ones((2, 2)))
    assert load_folder(own).names.tolist() == ["b.csv", "c.npy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must hold labels.csv"), (b"", "must begin with the line name,label or name,label"),
        (b"a,up\n", "must begin with the line"), (b"name,label\n", "holds no recording that can"),
        (b"name,label\n\xff,up", "labels.csv is no CSV file in UTF-8"),
        (b'name,label\n"a,up', "labels.csv is no CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_without_labels_there_is_an_error(own, content, message):
    (own / "labels.csv").unlink()
    if content is not None:
        (own / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_folder(own)


def test_a_link_that_leads_out_of_the_folder_is_an_error(own, tmp_path_factory):
    (own / "below").mkdir()
    (own / "a.csv").rename(own / "below" / "real.txt")
    (own / "a.csv").symlink_to(Path("below") / "real.txt")  # one that stays inside
    assert load_folder(own).names.tolist() == ["a.csv", "b.csv", "c.npy"]
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.csv"
    elsewhere.write_text("5,6\n")
    for name in ("b.csv", "labels.csv"):
        (own / name).rename(own / "kept.txt")
        (own / name).symlink_to(elsewhere)
        with pytest.raises(DataError, match=rf"{name} is a link that leads out .*secret.csv: copy"):
            load_folder(own)
        (own / "kept.txt").replace(own / name)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="--folder must be the folder of your recordings"):
        load_folder(tmp_path / "none")


def test_an_offset_that_float32_cannot_hold_is_named():
    numbers = 2**31 + np.arange(90)
    with pytest.raises(DataError, match="float32 loses what varies: subtract a large offset"):
        as_frames(numbers)
    np.testing.assert_array_equal(as_frames(numbers - 2**31)[:, 0], np.arange(90))
    assert as_frames(np.full(5, 2**31)).shape == (5, 1)  # a constant has nothing to lose
    with pytest.raises(DataError, match="or scale up tiny numbers"):
        as_frames(1e-50 * np.arange(90))


CSV = b"x,y\n" + b"".join(b"%d,%d.5\n" % (i, -i) for i in range(9))


@settings(max_examples=150)
@given(mutations(b"\n", b",", b"nan", b"e9", b"-", b"_", b"\x00", b'"', b" "))
def test_a_mutated_file_is_read_right_or_named(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("own")
    data = mutated(CSV, changes)
    (folder / "labels.csv").write_text("name,label\na,up\nb,down\nc,up\n")
    (folder / "a.csv").write_bytes(data)
    for name in ("b", "c"):
        (folder / f"{name}.csv").write_bytes(CSV)
    recordings = load_folder(folder)
    assert len(recordings) + len(recordings.rejected) == 3
    if "a.csv" in recordings.names:
        lines = [line for line in data.decode().splitlines() if line.strip()]
        rows = [[*map(float, line.split(","))] for line in lines[-len(recordings[0]) :]]
        np.testing.assert_array_equal(recordings[0], np.array(rows, np.float32))
        assert len(lines) - len(rows) in (0, 1)  # the heading


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text()
    blocks = re.findall(r"^```python \w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    files, prediction = (compile(code, str(PAGE), "exec") for code in blocks)
    lines = text.replace("\\\n", "")  # a command may go on in the next line
    commands = re.findall(r"^python -m experiments\.(train|predict) (.*)$", lines, re.MULTILINE)
    (_, training), (_, predicting) = commands
    monkeypatch.chdir(tmp_path)
    exec(files, {})
    assert main(training.split()) == 0
    assert "test_accuracy" in capsys.readouterr().out
    assert predict.main(predicting.split()) == 0
    assert "recordings/walk01.npy: fast " in capsys.readouterr().out
    exec(prediction, {})
    assert capsys.readouterr().out.startswith("{'fast': 0.")
