"""UTKinect-Action3D and MSR Action3D, from small files in their formats, sound and spoiled."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.datasets import DataError
from experiments.datasets.kinect import FARTHEST, MSR, UTKINECT, convert

from .mutations import converted, edit, mutated, mutations, reasons

FRAMES = 12


def skeletons(frames=FRAMES, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, (frames, 20, 3)).round(6)


def session_text(joints, step=2, first=100):
    rows = [
        f"{first + step * i}   " + "  ".join(f"{x:.6f}" for x in frame.flat)
        for i, frame in enumerate(joints)
    ]
    return "\n".join(rows) + "\n"


def sample_text(joints):
    return "".join(f"{x:.6f} {y:.6f} {z:.6f} 1.0\n" for x, y, z in joints.reshape(-1, 3))


LABELS = "s01_e01\nwalk: 100 106\nsitDown: 110 122 \n"


@pytest.fixture
def utkinect(tmp_path):
    """Frames 100, 102, ..., 122; walk has the first four, sitDown the last seven."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "joints_s01_e01.txt").write_text(session_text(skeletons()))
    (raw / "actionLabel.txt").write_text(LABELS)
    return raw


@pytest.fixture
def msr(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, seed in (("a02_s03_e01", 1), ("a20_s10_e02", 2)):
        (raw / f"{name}_skeleton3D.txt").write_text(sample_text(skeletons(3, seed)))
    return raw


def read(name, raw):
    return convert(name, raw, raw.parent / "out")


# --- UTKinect-Action3D --------------------------------------------------------------------------


def test_actions_are_cut_out_of_their_session(utkinect):
    recordings = read("utkinect", utkinect)
    assert recordings.names.tolist() == ["s01_e01_walk", "s01_e01_sitDown"]
    assert recordings.labels.tolist() == [0, 1] and recordings.subjects.tolist() == [1, 1]
    assert not recordings.rejected and recordings.about == UTKINECT
    np.testing.assert_allclose(recordings[0][:, 0], skeletons()[:4], rtol=1e-6)
    np.testing.assert_allclose(recordings[1][:, 0], skeletons()[5:], rtol=1e-6)


def test_frame_numbers_may_skip_and_repeat(utkinect):
    session = utkinect / "joints_s01_e01.txt"
    edit(session, b"\n102 ", b"\n100 ")
    edit(session, b"\n112 ", b"\n113 ")
    assert read("utkinect", utkinect).lengths.tolist() == [4, 7]


def test_line_ends_and_blanks_do_not_matter(utkinect):
    expected = read("utkinect", utkinect).frames.copy()
    for file in utkinect.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b" \r\n") + b" \r\n\r\n")
    recordings = read("utkinect", utkinect)
    assert not recordings.rejected
    np.testing.assert_array_equal(recordings.frames, expected)


@pytest.mark.parametrize(
    ("line", "old", "new", "reason"),
    [
        (3, b"\n104 ", b"\n104 0.5 ", "62 numbers, expected 61"),
        (3, b"\n104 ", b"\n104_0 ", "a word that is no number"),
        (3, b"\n104 ", b"\nframe ", "a word that is no number"),
        (3, b"\n104 ", b"\nnan ", "NaN or infinity"),
        (3, b"\n104 ", b"\n1e999 ", "NaN or infinity"),
        (3, b"\n104 ", b"\n90 ", "frame number 90 after 102"),
        (3, b"\n104 ", b"\n104.5 ", "frame number 104.5 after 102"),
        (4, b"\n106 ", b"\n106 \x00", "a word that is no number"),
    ],
)
def test_a_bad_line_spoils_its_action_alone(utkinect, line, old, new, reason):
    session = utkinect / "joints_s01_e01.txt"
    edit(session, old, new)
    if new.endswith(b"\x00"):
        session.write_bytes(session.read_bytes().replace(b"\x00  ", b"\x00"))
    recordings = read("utkinect", utkinect)
    assert recordings.names.tolist() == ["s01_e01_sitDown"]
    assert reasons(recordings) == [f"joints_s01_e01.txt, line {line}: walk: {reason}"]


def test_an_action_without_a_skeleton_is_named(utkinect):
    joints = skeletons()
    joints[:4] = 0
    (utkinect / "joints_s01_e01.txt").write_text(session_text(joints))
    recordings = read("utkinect", utkinect)
    assert recordings.names.tolist() == ["s01_e01_sitDown"]
    assert "walk: no frame has a skeleton" in reasons(recordings)[0]


def test_a_bad_line_at_the_border_spoils_both_neighbours(utkinect):
    (utkinect / "actionLabel.txt").write_text("s01_e01\nwalk: 100 108\nsitDown: 112 122\n")
    edit(utkinect / "joints_s01_e01.txt", b"\n110 ", b"\nx ")
    with pytest.raises(DataError, match="walk: a word .* sitDown: a word"):
        read("utkinect", utkinect)


def test_a_coordinate_without_its_point(utkinect):
    x = f"{skeletons()[1, 0, 0]:.6f}".encode()
    edit(utkinect / "joints_s01_e01.txt", x, x.replace(b".", b""))
    [reason] = reasons(read("utkinect", utkinect))
    assert f"expected at most {FARTHEST:g}" in reason and "walk" in reason


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("s01_e01\nwalk: NaN NaN\n", "actionLabel.txt, line 2: s01_e01 walk: 'NaN NaN' is no"),
        ("s01_e01\nwalk: 106 100\n", "actionLabel.txt, line 2: s01_e01 walk: '106 100' is no"),
        ("s01_e01\nwalk: 100\n", "actionLabel.txt, line 2: s01_e01 walk: '100' is no first"),
        ("s01_e01\nfly: 100 106\n", "actionLabel.txt, line 2: 'fly' is none of the ten actions"),
        ("s01_e01\nsitDown: 100 104\n", "actionLabel.txt, line 4: a second sitDown of s01_e01"),
        ("session\nwalk: 100 106\ns01_e01\n", "actionLabel.txt, line 1: 'session' is no session"),
        ("walk: 100 106\ns01_e01\n", "actionLabel.txt, line 1: an action of no session"),
        ("s02_e01\nwalk: 100 106\ns01_e01\n", "actionLabel.txt, line 2: joints_s02_e01.txt is not"),
        ("s01_e01\nwalk: 101 101\n", "walk: the file does not have the frames 101 to 101"),
        ("s01_e01\nwalk: 90 104\n", "walk: the file does not have the frames 90 to 104"),
    ],
)
def test_bad_labels_are_named_and_the_rest_is_read(utkinect, labels, reason):
    (utkinect / "actionLabel.txt").write_text(labels + "push: 100 100\nsitDown: 110 122\n")
    recordings = read("utkinect", utkinect)
    assert "s01_e01_push" in recordings.names
    assert any(reason in one for one in reasons(recordings))


def test_a_truncated_session_loses_its_last_action(utkinect):
    session = utkinect / "joints_s01_e01.txt"
    session.write_bytes(session.read_bytes()[:-3])  # the last number has lost its last digits
    recordings = read("utkinect", utkinect)
    assert recordings.names.tolist() == ["s01_e01_walk"]
    assert "sitDown" in reasons(recordings)[0]


def test_files_that_do_not_belong(utkinect):
    (utkinect / "joints_1.txt").write_text("")
    (utkinect / "joints_s09_e01.txt").write_text("")
    (utkinect / "again").mkdir()
    (utkinect / "again" / "joints_s01_e01.txt").write_text(session_text(skeletons()))
    assert reasons(read("utkinect", utkinect)) == [
        "joints_1.txt: the name is not joints_sSS_eEE.txt",
        "joints_s01_e01.txt: in again/: there is another file of this name, in ./, which is taken",
        "joints_s09_e01.txt: actionLabel.txt has no action of it",
    ]


def test_without_labels_or_folder(utkinect):
    (utkinect / "actionLabel.txt").unlink()
    with pytest.raises(DataError, match="raw must hold actionLabel.txt"):
        read("utkinect", utkinect)
    with pytest.raises(DataError, match="raw must be the folder"):
        read("utkinect", utkinect / "nowhere")


def test_what_the_system_cannot_read_is_named(utkinect, monkeypatch):
    real = Path.read_bytes

    def broken(path):
        if path.name == "joints_s01_e01.txt":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(DataError, match="the file cannot be read: Input/output error"):
        read("utkinect", utkinect)


# --- MSR Action3D -------------------------------------------------------------------------------


def test_samples_are_read(msr):
    recordings = read("msr", msr)
    assert recordings.names.tolist() == ["a02_s03_e01", "a20_s10_e02"]
    assert recordings.labels.tolist() == [1, 19] and recordings.subjects.tolist() == [3, 10]
    assert recordings.columns["repetition"].tolist() == [1, 2] and recordings.about == MSR
    np.testing.assert_allclose(recordings[1][:, 0], skeletons(3, 2), rtol=1e-6)


def test_frames_without_a_skeleton_are_left_out(msr):
    joints = skeletons(3, 1)
    joints[1] = 0
    (msr / "a02_s03_e01_skeleton3D.txt").write_text(sample_text(joints))
    np.testing.assert_allclose(read("msr", msr)[0][:, 0], joints[[0, 2]], rtol=1e-6)


SAMPLE = sample_text(skeletons(3, 1)).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ": 0 lines, expected 20 for each frame"),
        (SAMPLE[: SAMPLE.index(b"\n") + 1], ": 1 lines, expected 20 for each frame"),
        (SAMPLE[:-5], ", line 60: the file ends in the middle of a line"),
        (SAMPLE[:-1], ", line 60: the file ends in the middle of a line"),
        (SAMPLE.replace(b" ", b" NaN ", 1), ", line 1: 5 numbers, expected 4"),
        (SAMPLE.replace(b"1.0\n", b"inf\n", 1), ", line 1: NaN or infinity"),
        (sample_text(np.zeros((2, 20, 3))).encode(), ": no frame has a skeleton"),
        (sample_text(np.full((1, 20, 3), 30.0)).encode(), ", line 1: a coordinate of 30 m, expec"),
        (bytes(range(256)) * 20, ", line 1: 1 numbers, expected 4"),
    ],
)
def test_a_bad_sample_is_named_and_the_rest_is_read(msr, content, reason):
    (msr / "a02_s03_e01_skeleton3D.txt").write_bytes(content)
    recordings = read("msr", msr)
    assert recordings.names.tolist() == ["a20_s10_e02"]
    assert reasons(recordings)[0].startswith(f"a02_s03_e01_skeleton3D.txt{reason}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a02_s03_skeleton3D.txt", "the name is not"), ("a21_s01_e01_skeleton3D.txt", "action 21"),
        ("a02_s03_e01_skeleton.txt", "the name is not"),
        ("a02_s11_e01_skeleton3D.txt", "subject 11 is none of 1 to 10"),
    ],
)  # fmt: skip
def test_other_names_are_rejected(msr, name, reason):
    (msr / name).write_bytes(SAMPLE)
    [found] = reasons(read("msr", msr))
    assert found.startswith(f"{name}: {reason}")


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="MSR Action3D: there is no recording"):
        convert("msr", tmp_path, tmp_path / "out")


# --- mutated files ------------------------------------------------------------------------------

changes_of_text = mutations(b"\n", b"\r\n", b" ", b"nan", b"-", b".", b"e9", b"0", b"\x00")
fuzzed = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def check_sound(frames):
    for one in frames.values():
        assert one.shape[1:] == (1, 20, 3) and np.isfinite(one).all()
        assert np.abs(one).max() <= FARTHEST


@fuzzed
@given(changes_of_text, st.booleans())
def test_mutated_sessions_are_read_or_named(changes, of_labels):
    session, labels = session_text(skeletons()).encode(), LABELS.encode()
    if of_labels:
        labels = mutated(labels, changes)
    else:
        session = mutated(session, changes)
    files = {"joints_s01_e01.txt": session, "actionLabel.txt": labels}
    frames, problems = converted(partial(convert, "utkinect"), files)
    if frames is None:
        assert problems
        return
    check_sound(frames)
    if not of_labels:
        assert len(frames) + len(problems) == 2  # every action is either read or named


@fuzzed
@given(changes_of_text)
def test_mutated_samples_are_read_or_named(changes):
    files = {
        "a01_s01_e01_skeleton3D.txt": mutated(SAMPLE, changes),
        "a01_s02_e01_skeleton3D.txt": SAMPLE,
    }
    frames, problems = converted(partial(convert, "msr"), files)
    check_sound(frames)
    assert len(frames) + len(problems) == 2
    np.testing.assert_allclose(frames["a01_s02_e01"][:, 0], skeletons(3, 1), rtol=1e-6)


@given(st.integers(0, len(SAMPLE)))
def test_a_truncated_sample_is_never_read_wrong(size):
    files = {"a01_s01_e01_skeleton3D.txt": SAMPLE[:size], "a01_s02_e01_skeleton3D.txt": SAMPLE}
    frames, problems = converted(partial(convert, "msr"), files)
    if "a01_s01_e01" in frames:  # cut between two frames: the format cannot tell
        read = frames["a01_s01_e01"][:, 0]
        np.testing.assert_allclose(read, skeletons(3, 1)[: len(read)], rtol=1e-6)
    else:
        assert len(problems) == 1


@given(st.integers(0, len(session_text(skeletons()))))
def test_a_truncated_session_is_never_read_wrong(size):
    session = session_text(skeletons()).encode()[:size]
    files = {"joints_s01_e01.txt": session, "actionLabel.txt": LABELS.encode()}
    frames, _ = converted(partial(convert, "utkinect"), files)
    whole = {"s01_e01_walk": skeletons()[:4], "s01_e01_sitDown": skeletons()[5:]}
    for name, read in (frames or {}).items():
        np.testing.assert_allclose(read[:, 0], whole[name], rtol=1e-6)
