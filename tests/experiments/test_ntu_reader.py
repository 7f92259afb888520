"""Skeleton files: what is in them, and what is wrong with them, by line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets.ntu.reader import parse, read_skeleton
from experiments.datasets.recordings import SkeletonError
from tests.experiments.fake_ntu import BODY, POSE, recording, text_of
from tests.experiments.mutations import mutated, mutations

SEVERAL = text_of(
    [
        {},
        {BODY: POSE},
        {BODY: POSE + 0.1, BODY + 1: POSE - 0.25},
        {},
        {BODY + 1: POSE, 7: POSE * 1e-6},
    ]
)
FIRST_JOINT = 5  # lines before it: frames, bodies, fields of the body, joints


def assert_same(found, expected):
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def reason(data):
    """Why the data are no recording, which is fit to be printed, and the line."""
    with pytest.raises(SkeletonError) as refusal:
        parse(data)
    message = str(refusal.value)
    assert message.isprintable() and len(message) < 300
    return refusal.value.reason, refusal.value.line


# --- what is in a file --------------------------------------------------------------------------


def test_a_file_is_read(tmp_path):
    path = tmp_path / "a.skeleton"
    path.write_bytes(SEVERAL)
    found = read_skeleton(path)
    assert found.frame.tolist() == [1, 2, 2, 4, 4]
    assert found.body.tolist() == [BODY, BODY, BODY + 1, BODY + 1, 7]
    assert found.joints.dtype == np.float32
    np.testing.assert_allclose(found.joints[1], POSE + 0.1, rtol=1e-6)


def test_tracking_ids_keep_all_their_digits():
    ids = [2**64 - 1, 2**64 - 2, 2**53 + 1, 0]
    assert parse(text_of([dict.fromkeys(ids, POSE)])).body.tolist() == ids


HARMLESS = {
    "Windows line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "trailing blanks": lambda data: data.replace(b"\n", b" \t \n"),
    "both": lambda data: data.replace(b"\n", b"  \r\n"),
    "two blanks": lambda data: data.replace(b" ", b"  "),
    "tabs": lambda data: data.replace(b" ", b"\t"),
    "leading blanks": lambda data: data.replace(b"\n", b"\n "),
    "no end of the last line": lambda data: data[:-1],
    "blank lines at the end": lambda data: data + b"\n \r\n\n",
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_blanks_and_line_ends_do_not_matter(change):
    assert_same(parse(change(SEVERAL)), parse(SEVERAL))


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "inf", "1E+39", "-1e400"])
def test_a_pixel_need_not_be_finite(word):
    lines = recording(1).decode().splitlines()
    words = lines[FIRST_JOINT].split()
    words[5] = word
    lines[FIRST_JOINT] = " ".join(words)
    assert_same(parse("\n".join(lines).encode()), parse(recording(1)))


# --- what is wrong with a file ------------------------------------------------------------------


def with_line(number, text):
    lines = recording(2).decode().splitlines()
    lines[number - 1] = text
    return "\n".join(lines).encode()


JOINT = "0.1 0.2 3 1 1 1 1 0 0 0 0 2"
#: 2 frames of 1 body: line 1, then 28 lines a frame.
DAMAGE = {
    "empty": (b"", 1, "expected the number of frames; got the end of the file"),
    "blank": (b"\n\n", 1, "expected the number of frames"),
    "no frames": (b"0\n", 1, "at least 1; got 0"),
    "no bodies": (b"3\n0\n0\n0\n", None, "no body in any of the 3 frames"),
    "not a number of frames": (with_line(1, "2.0"), 1, "number of frames, a whole number"),
    "more frames than there are": (with_line(1, "3"), 58, "number of bodies in frame 3 of 3"),
    "fewer frames": (with_line(1, "1"), 30, "expected the end of the file"),
    "no end of frames": (with_line(1, "9" * 20), None, "whole number"),
    "negative": (with_line(2, "-1"), 2, "number of bodies in frame 1 of 2"),
    "two bodies, one there": (with_line(2, "2"), 30, "tracking id"),
    "few fields": (with_line(3, "7 0 0 0"), 3, "10 fields; got 4"),
    "no tracking id": (with_line(3, "7.5 0 0 0 0 0 0 0 0 2"), 3, "a tracking id, a whole number"),
    "a large tracking id": (with_line(3, f"{2**64} 0 0 0 0 0 0 0 0 2"), 3, "tracking id"),
    "24 joints": (with_line(4, "24"), 4, "expected 25 joints; got 24"),
    "11 fields": (with_line(9, JOINT[:-2]), 9, "joint 5 of 25, 12 fields; got 11"),
    "13 fields": (with_line(9, JOINT + " 2"), 9, "12 fields; got 13"),
    "a blank line": (with_line(9, ""), 9, "got 0"),
    "NaN": (with_line(9, JOINT.replace("0.1", "NaN")), 9, "x of joint 5 of 25, finite"),
    "infinity": (with_line(9, JOINT.replace("0.2", "-inf")), 9, "y of joint 5 of 25, finite"),
    "a lost point": (with_line(9, JOINT.replace("3", "3785547")), 9, "at most 1000"),
    "a word": (with_line(9, JOINT.replace("0.1", "x")), 9, "12 numbers; got"),
    "two points": (with_line(9, JOINT.replace("0.1", "0.1.5")), 9, "12 numbers; got"),
    "Python's own numbers": (with_line(9, JOINT.replace("0.1", "0_1")), 9, "0_1"),
    "a null byte": (with_line(9, JOINT.replace("0.1", "0\0001")), 9, "joint 5"),
    "a state": (
        with_line(9, JOINT[:-1] + "3"),
        9,
        "the tracking state of joint 5 of 25, 0, 1 or 2; got 3",
    ),
    "a byte order mark": (b"\xef\xbb\xbf" + recording(2), 1, "number of frames"),
    "no text": (bytes(range(256)) * 20, 1, "number of frames"),
    "more behind": (recording(2) + b"1", 58, "expected the end of the file after the last frame"),
}


@pytest.mark.parametrize(("data", "line", "wanted"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_its_line(data, line, wanted):
    found, at = reason(data)
    assert wanted in found
    if line is not None or "in any" in wanted:
        assert at == line


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_cut_at_any_byte_is_noticed(end):
    """Of the first lines and the last; of the joints between, which are alike, where lines end."""
    whole = text_of([{BODY: POSE}, {BODY: POSE + 0.1}]).replace(b"\n", end)
    ends = [at for at, byte in enumerate(whole) if byte == end[0]]
    around = {at + n for at in ends for n in range(-1, 3) if at + n < len(whole)}
    for length in sorted({*range(ends[5]), *around, *range(ends[-2], len(whole))}):
        if length >= len(whole) - len(end):  # nothing but the end of the last line is missing
            assert_same(parse(whole[:length]), parse(whole))
        else:
            reason(whole[:length])


def test_a_cut_in_a_file_that_ends_without_bodies_is_noticed():
    whole = text_of([{BODY: POSE}, {}, {}])
    for length in range(len(whole) - 8, len(whole) - 1):
        reason(whole[:length])


def test_what_cannot_be_a_recording_is_not_loaded(tmp_path):
    path = tmp_path / "a.skeleton"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # takes no room on disk
    with pytest.raises(SkeletonError, match="2147483648 bytes; expected at most"):
        read_skeleton(path)


PIECES = [bytes([byte]) for byte in b"0123456789.-+eE \n\r\t_NnaAiI"]


@settings(max_examples=300)
@given(changes=mutations(*PIECES))
def test_a_mutated_file_is_read_or_refused(changes):
    data = mutated(SEVERAL, changes)
    try:
        found = parse(data)
    except SkeletonError:
        reason(data)
        return
    assert found.joints.shape == (len(found.frame), 25, 3) and np.isfinite(found.joints).all()


@settings(max_examples=300)
@given(data=st.binary(max_size=200) | st.text("0123456789 \n", max_size=200).map(str.encode))
def test_anything_else_is_refused(data):
    reason(data)
