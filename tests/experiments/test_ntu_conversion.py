"""``python -m experiments.datasets ntu``: what goes wrong with one file, a process or the disk."""

import errno
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.datasets.__main__ import REJECTED, main
from experiments.datasets.ntu import conversion
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.reader import parse
from experiments.datasets.recordings import SkeletonError, open_recordings
from tests.experiments.fake_ntu import BODY, POSE, fill, recording, text_of

NAMES = [
    f"S{s:03d}C{c:03d}P{p:03d}R001A{a:03d}"
    for s, c, p, a in [(1, 1, 1, 3), (1, 2, 3, 4), (2, 3, 10, 60), (17, 1, 40, 1), (5, 2, 8, 7)]
]
#: On the authors' list of missing skeletons.
LISTED = "S001C002P005R002A008"
OUTPUT = {"frames.npy", "index.npz", "meta.json"}


@pytest.fixture
def raw(tmp_path):
    fill(tmp_path / "raw", NAMES)
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def path_of(raw, index):
    return raw / f"{NAMES[index]}.skeleton"


def run(raw, out, *options):
    return main(["ntu", str(raw), str(out), *options])


def assert_whole(out, raw, names=NAMES):
    """The output holds these recordings, each as its file says, and nothing half made."""
    assert {path.name for path in out.iterdir()} == OUTPUT
    recordings = open_recordings(out)
    assert recordings.names.tolist() == sorted(names)
    for index, name in enumerate(recordings.names):
        [path] = raw.rglob(f"{name}.skeleton")
        np.testing.assert_array_equal(recordings[index], main_actors(parse(path.read_bytes())))
        numbers = [int(name[i : i + 3]) for i in (1, 5, 9, 13, 17)]
        assert numbers == [
            recordings.columns["setup"][index],
            recordings.columns["camera"][index],
            recordings.subjects[index],
            recordings.columns["repetition"][index],
            recordings.labels[index] + 1,
        ]
    return recordings


# --- all is well --------------------------------------------------------------------------------


def test_a_folder_is_converted(raw, out, capsys):
    assert run(raw, out) == 0
    recordings = assert_whole(out, raw)
    assert isinstance(recordings.frames, np.memmap)
    assert recordings.about.data_set == "NTU RGB+D 60"
    printed = capsys.readouterr().out
    assert f"NTU RGB+D 60: 5 recordings, 20 frames in {out}" in printed
    assert "xsub: 2 train, 3 test (published: 40,091 and 16,487)" in printed


def test_files_may_lie_at_any_depth_and_beside_others(raw, out):
    (raw / "a" / "b").mkdir(parents=True)
    path_of(raw, 0).rename(raw / "a" / "b" / path_of(raw, 0).name)
    (raw / "readme.txt").write_text("hello")
    assert run(raw, out) == 0
    assert_whole(out, raw)


def test_later_actions_make_it_ntu_120(raw, out, capsys):
    fill(raw, ["S018C001P041R001A061"])
    assert run(raw, out) == 0
    recordings = assert_whole(out, raw, [*NAMES, "S018C001P041R001A061"])
    assert recordings.about.data_set == "NTU RGB+D 120"
    assert "xset: 2 train, 4 test" in capsys.readouterr().out


def test_the_official_list_is_honoured(raw, out, capsys):
    (raw / f"{LISTED}.skeleton").write_bytes(b"not even a file")
    assert run(raw, out) == 0
    assert_whole(out, raw)
    assert "1 on the authors' list of missing skeletons" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_make_the_same(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "FILES_PER_WORKER", 1)
    damaged = path_of(raw, 2)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert run(raw, tmp_path / "one", "--workers", "1") == REJECTED
    assert run(raw, tmp_path / "two", "--workers", "2") == REJECTED
    for name in ("frames.npy", "meta.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert_whole(tmp_path / "two", raw, NAMES[:2] + NAMES[3:])


# --- a file is no recording ---------------------------------------------------------------------


def test_a_damaged_file_is_rejected_in_one_line_and_the_rest_converts(raw, out, capsys):
    path = path_of(raw, 1)
    whole = text_of([{BODY: POSE}] * 4)
    path.write_bytes(whole[:-10])
    assert run(raw, out) == REJECTED
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "rejected: 1" and lines[-1].startswith(path.name)
    assert ", line 113: expected joint 25 of 25, 12 fields; got" in lines[-1]
    recordings = assert_whole(out, raw, NAMES[:1] + NAMES[2:])
    assert [one.file for one in recordings.rejected] == [path.name]
    path.write_bytes(whole)  # put right
    assert run(raw, out) == 0
    assert not assert_whole(out, raw).rejected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hello", "the name is not SsssCcccPpppRrrrAaaa"),
        ("S001C001P001R001A121", "the name has action 121"),
        ("S001C001P001R001A01\n", "the name is not"),
    ],
)
def test_a_name_that_is_none(raw, out, capsys, name, reason):
    (raw / f"{name}.skeleton").write_bytes(recording())
    assert run(raw, out) == REJECTED
    line = capsys.readouterr().err.splitlines()[-1]
    assert reason in line
    assert_whole(out, raw)


def test_a_name_of_any_bytes(raw, out, capsys):
    try:
        Path(os.fsdecode(bytes(raw) + b"/S\xff.skeleton")).write_bytes(recording())
    except OSError:
        pytest.skip("this file system takes no such name")
    for _ in range(2):
        assert run(raw, out) == REJECTED
        assert "xff.skeleton: the name is not" in capsys.readouterr().err.splitlines()[-1]
    assert_whole(out, raw)


def test_folders_and_links_with_names_of_files(raw, out, capsys):
    (raw / "S001C001P001R001A050.skeleton").mkdir()
    (raw / "S001C001P001R001A051.skeleton").symlink_to(raw / "nowhere")
    os.mkfifo(raw / "S001C001P001R001A052.skeleton")  # reading it would block
    (raw / "circle").symlink_to(raw)
    assert run(raw, out) == REJECTED
    lines = capsys.readouterr().err.splitlines()[-3:]
    assert lines == [
        "S001C001P001R001A051.skeleton: it is no regular file",
        "S001C001P001R001A052.skeleton: it is no regular file",
        "circle: a link to a folder, which is not followed",
    ]
    (raw / "circle").unlink()
    (raw / "S001C001P001R001A051.skeleton").unlink()
    assert_whole(out, raw)


ROOT_READS_ALL = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.mark.parametrize("by", [pytest.param("mode", marks=ROOT_READS_ALL), "patch"])
def test_what_may_not_be_read_is_named_and_tried_again(raw, out, monkeypatch, capsys, by):
    def denied(what, closed, path, *rest):
        if not isinstance(path, int) and Path(path).name == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return what(path, *rest)

    folder, file = raw / "closed", path_of(raw, 1)
    folder.mkdir()
    with monkeypatch.context() as patch:
        if by == "mode":
            folder.chmod(0)
            file.chmod(0)
        else:
            patch.setattr(os, "scandir", partial(denied, os.scandir, folder.name))
            fails = partial(denied, conversion.read_skeleton, file.name)
            patch.setattr(conversion, "read_skeleton", fails)
        assert run(raw, out) == REJECTED
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert "closed/: the folder cannot be read: Permission denied" in lines
    assert f"{file.name}: the file cannot be read: Permission denied" in lines
    file.chmod(0o600)
    folder.chmod(0o700)
    assert run(raw, out) == 0
    assert_whole(out, raw)


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (lambda raw: None, "raw must be the folder of the authors' files"),
        (lambda raw: raw.mkdir(), "holds no .skeleton file"),
        (lambda raw: raw.write_text(""), "is no folder"),
        (lambda raw: fill(raw, [LISTED]), "(1 on the authors' list"),
        (lambda raw: fill(raw, ["hello"]), "hello.skeleton: the name is not"),
        (lambda raw: fill(raw, NAMES[:1], 0), f"{NAMES[0]}.skeleton, line 1: expected the number"),
    ],
)
def test_nothing_to_convert(tmp_path, out, capsys, prepare, complaint):
    prepare(tmp_path / "raw")
    assert run(tmp_path / "raw", out) == 1
    assert complaint in capsys.readouterr().err
    assert not (out / "meta.json").exists()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20_000), st.binary(max_size=3)))
)
def test_mutated_files_are_converted_right_or_rejected(tmp_path, changes):
    raw, out = tmp_path / "raw", tmp_path / "out"
    contents = fill(raw, NAMES, frames=2)
    for which, at, piece in changes:
        data = contents[NAMES[which]]
        contents[NAMES[which]] = data[:at] + piece + data[at + 2 :]
        (raw / f"{NAMES[which]}.skeleton").write_bytes(contents[NAMES[which]])
    good = []
    for name, data in contents.items():
        try:
            parse(data)
        except SkeletonError:
            continue
        good.append(name)
    if good:
        assert run(raw, out) == (0 if len(good) == len(NAMES) else REJECTED)
        recordings = assert_whole(out, raw, good)
        rejected = [Path(one.file).stem for one in recordings.rejected]
        assert sorted(good + rejected) == sorted(NAMES)
    else:
        assert run(raw, out) == 1


# --- killed, and no room ------------------------------------------------------------------------


class KilledFiles(conversion._Files):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_reported(raw, out, monkeypatch, capsys):
    monkeypatch.setattr(conversion, "FILES_PER_WORKER", 1)
    monkeypatch.setattr(conversion, "_Files", KilledFiles)
    assert run(raw, out, "--workers", "2") == 1
    assert "a process that read files was killed" in capsys.readouterr().err
    assert not [*out.iterdir()]


def test_a_full_disk_or_a_stop_leaves_the_output_that_was_there(raw, out, monkeypatch, capsys):
    assert run(raw, out) == 0
    before = (out / "frames.npy").read_bytes()
    fill(raw, ["S003C001P002R002A009"])
    for error, status in (
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (KeyboardInterrupt(), 130),
    ):

        def fail(*arguments, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("experiments.datasets.recordings.Writer.finish", fail)
            assert run(raw, out) == status
        assert ("No space left on device" in capsys.readouterr().err) == (status == 1)
        assert (out / "frames.npy").read_bytes() == before
        assert len(open_recordings(out)) == len(NAMES)
    assert run(raw, out) == 0
    assert_whole(out, raw, [*NAMES, "S003C001P002R002A009"])


def test_an_output_that_cannot_be_a_folder(raw, out, capsys):
    out.write_text("a file")
    assert run(raw, out) == 1
    assert f"{out} cannot be written to" in capsys.readouterr().err


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["ntu"], ["ntu", "raw"], ["ntu", "raw", "out", "--workers", "0"], ["nothing"], []]
)
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
