"""``python -m experiments.datasets ntu``: what goes wrong with one file, a process or the disk."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.datasets import DataError
from experiments.datasets.__main__ import REJECTED, main
from experiments.datasets.ntu import conversion, reader
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.conversion import convert
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.reference_reader import parse
from experiments.datasets.recordings import SkeletonError, open_recordings
from tests.experiments.fake_ntu import BODY, POSE, fill, recording, text_of

NAMES = [
    f"S{s:03d}C{c:03d}P{p:03d}R001A{a:03d}"
    for s, c, p, a in [(1, 1, 1, 3), (1, 2, 3, 4), (2, 3, 10, 60), (17, 1, 40, 1), (5, 2, 8, 7)]
]
#: On the authors' list of missing skeletons.
LISTED = "S001C002P005R002A008"
OUTPUT = {".lock", "frames.npy", "index.npz", "meta.json", "sources.json"}


@pytest.fixture
def raw(tmp_path):
    fill(tmp_path / "raw", NAMES)
    return tmp_path / "raw"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, as they are (by this process)."""
    names = []

    def watched(path):
        names.append(Path(path).stem)
        return read_skeleton(path)

    monkeypatch.setattr(conversion, "read_skeleton", watched)
    return names


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


def test_the_official_list_is_honoured(raw, out, reads, capsys):
    (raw / f"{LISTED}.skeleton").write_bytes(b"not even a file")
    assert run(raw, out) == 0
    assert_whole(out, raw)
    assert LISTED not in reads
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


def test_an_output_is_converted_again_only_if_something_changed(raw, out, reads):
    assert run(raw, out) == 0
    assert sorted(reads) == sorted(NAMES)
    before = (out / "frames.npy").stat()
    reads.clear()
    assert run(raw, out) == 0
    assert not reads and (out / "frames.npy").stat().st_mtime_ns == before.st_mtime_ns
    fill(raw, ["S003C001P002R002A009"])
    assert run(raw, out) == 0
    assert reads == ["S003C001P002R002A009"]
    assert_whole(out, raw, [*NAMES, "S003C001P002R002A009"])
    reads.clear()
    path_of(raw, 1).unlink()
    assert run(raw, out) == 0 and not reads
    assert_whole(out, raw, [NAMES[0], *NAMES[2:], "S003C001P002R002A009"])


# --- a file is no recording ---------------------------------------------------------------------


def test_a_damaged_file_is_rejected_in_one_line_and_the_rest_converts(raw, out, reads, capsys):
    path = path_of(raw, 1)
    whole = text_of([{BODY: POSE}] * 4)
    path.write_bytes(whole[:-10])
    complaint = ", line 113: expected joint 25 of 25, 12 fields; got"
    for _ in range(2):  # it is named again, and not read again
        assert run(raw, out) == REJECTED
        lines = capsys.readouterr().err.splitlines()
        assert lines[-2] == "rejected: 1"
        assert lines[-1].startswith(path.name) and complaint in lines[-1]
        recordings = assert_whole(out, raw, NAMES[:1] + NAMES[2:])
        assert [one.file for one in recordings.rejected] == [path.name]
    assert reads.count(path.stem) == 1
    path.write_bytes(whole)  # put right
    assert run(raw, out) == 0
    assert reads.count(path.stem) == 2 and len(reads) == len(NAMES) + 1
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
            patch.setattr(reader, "_load", partial(denied, reader._load, file.name))
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


def make_many(raw, count=60, frames=4):
    names = [f"S001C001P001R001A{a:03d}" for a in range(1, count + 1)]
    fill(raw, names, frames)
    return names


COMMAND = """
import signal, sys, time
# What a shell starts in the background inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from experiments.datasets.__main__ import main
from experiments.datasets.ntu import conversion
conversion.FILES_PER_WORKER = 1
read = conversion.read_skeleton
def slow(path):  # time to kill it
    time.sleep(0.05)
    return read(path)
conversion.read_skeleton = slow
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1), (signal.SIGINT, 2)]
)
def test_a_killed_conversion_goes_on_where_it_was(tmp_path, out, reads, number, workers):
    raw = tmp_path / "raw"
    names = make_many(raw)
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, script, "ntu", raw, out, "--workers", str(workers)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while len(list(out.glob(".parts/*.npz"))) < 15:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)  # also waits for workers, who have the pipe too
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-1].endswith("run the same command to continue from here")
    else:
        assert process.returncode == -number
    assert not (out / "meta.json").exists() and not (out / "frames.npy").exists()
    finished = finished_in(out)
    assert 15 <= len(finished) < len(names)
    (out / ".frames.npy.1.tmp").write_bytes(b"of a process that was killed")
    assert run(raw, out) == 0
    assert sorted(reads) == sorted(set(names) - set(finished))
    assert_whole(out, raw, names)


def finished_in(out):
    """The names of the recordings that a stopped conversion has finished."""
    return [path.name.partition("-")[0] for path in out.glob(".parts/*.npz")]


def test_a_damaged_part_is_read_again(raw, out, reads, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_assemble", stopped)
        assert run(raw, out, "--workers", "1") == 130
    parts = sorted(out.glob(".parts/*.npz"))
    cut, rotten = parts[2:4]
    cut.write_bytes(cut.read_bytes()[:-40])
    data = rotten.read_bytes()
    middle = len(data) // 2
    rotten.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    reads.clear()
    assert run(raw, out) == 0
    assert sorted(reads) == sorted(NAMES)[2:4]
    assert_whole(out, raw)


def test_what_an_older_version_made_is_read_again(raw, out, reads, monkeypatch):
    assert run(raw, out) == 0
    reads.clear()
    monkeypatch.setattr(conversion, "VERSION", conversion.VERSION + 1)
    assert run(raw, out) == 0
    assert sorted(reads) == sorted(NAMES)
    assert_whole(out, raw)


class KilledParts(conversion._Parts):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_reported(tmp_path, out, monkeypatch, capsys):
    raw = tmp_path / "raw"
    make_many(raw, 4)
    monkeypatch.setattr(conversion, "FILES_PER_WORKER", 1)
    monkeypatch.setattr(conversion, "_Parts", KilledParts)
    assert run(raw, out, "--workers", "2") == 1
    assert "a process that read files was killed" in capsys.readouterr().err


@pytest.fixture
def small_files():
    """Files of this process can have 50 kB, and what is too much is an error, not a signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("frames", [100, 4])
def test_a_full_disk_keeps_what_is_finished(tmp_path, out, reads, capsys, request, frames):
    """With long recordings the first part is too much; with short ones the output is."""
    raw = tmp_path / "raw"
    names = make_many(raw, 24, frames)
    reader._parser()  # build it while there is room
    more_room = request.getfixturevalue("small_files")
    assert run(raw, out, "--workers", "1") == 1
    more_room()
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write" in error and "File too large" in error and str(out) in error
    assert "run the same command again" in error
    assert not (out / "meta.json").exists() and not (out / "frames.npy").exists()
    assert not list(out.rglob("*.tmp"))
    finished = finished_in(out)
    assert len(finished) == (0 if frames == 100 else len(names))
    reads.clear()
    assert run(raw, out) == 0
    assert sorted(reads) == sorted(set(names) - set(finished))
    assert_whole(out, raw, names)


def test_a_full_disk_leaves_the_output_that_was_there(raw, out, monkeypatch, capsys):
    assert run(raw, out) == 0
    before = (out / "frames.npy").read_bytes()
    fill(raw, ["S003C001P002R002A009"])

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("experiments.datasets.recordings.Writer.finish", full)
        assert run(raw, out) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert (out / "frames.npy").read_bytes() == before
    assert len(open_recordings(out)) == len(NAMES)
    assert run(raw, out) == 0
    assert_whole(out, raw, [*NAMES, "S003C001P002R002A009"])


def test_an_output_that_cannot_be_a_folder(raw, out, capsys):
    out.write_text("a file")
    assert run(raw, out) == 1
    assert f"cannot write {out}" in capsys.readouterr().err


def test_two_conversions_do_not_write_one_folder(raw, out):
    with conversion._alone(out), pytest.raises(DataError, match="another conversion writes"):
        convert("ntu", raw, out, 1)
    convert("ntu", raw, out, 1)
    assert_whole(out, raw)


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["ntu"], ["ntu", "raw"], ["ntu", "raw", "out", "--workers", "0"], ["nothing"], []]
)
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
