"""Skeleton files: the fast reader and the one in Python agree on every byte sequence."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.datasets.ntu import reader
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.reference_reader import parse
from experiments.datasets.recordings import SkeletonError
from irevrnn.kernels.jit.compiler import BuildError
from tests.experiments.fake_ntu import BODY, POSE, moving, recording, text_of
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


@pytest.fixture(scope="module")
def compiled(kernels):
    """The fast reader, with its compiled parser."""
    assert reader._parser() is not None
    return read_skeleton


def assert_same(found, expected):
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def check(fast, path, data):
    """Both readers give the same, or refuse the same; True if they took it."""
    path.write_bytes(data)
    try:
        expected = parse(data)
    except SkeletonError:
        with pytest.raises(SkeletonError) as refusal:
            fast(path)
        message = str(refusal.value)
        assert message.isprintable() and len(message) < 300
        return False
    assert_same(fast(path), expected)
    return True


# --- what is in a file --------------------------------------------------------------------------


def test_a_file_is_read(tmp_path, compiled):
    path = tmp_path / "a.skeleton"
    path.write_bytes(SEVERAL)
    found = read_skeleton(path)
    assert found.frame.tolist() == [1, 2, 2, 4, 4]
    assert found.body.tolist() == [BODY, BODY, BODY + 1, BODY + 1, 7]
    assert found.joints.dtype == np.float32
    np.testing.assert_allclose(found.joints[1], POSE + 0.1, rtol=1e-6)


def test_the_parser_takes_files_of_the_published_form(tmp_path, compiled):
    def people(count, frames):
        bodies = [moving(frames, seed) for seed in range(count)]
        return text_of([dict(enumerate(x, BODY)) for x in zip(*bodies, strict=True)], "\r\n")

    for data in (SEVERAL, people(2, frames=3), people(3, frames=2)):
        path = tmp_path / "a.skeleton"
        path.write_bytes(data)
        found = reader._parse_fast(*reader._load(path))
        assert_same(found, parse(data))


def test_tracking_ids_keep_all_their_digits(compiled, tmp_path):
    ids = [2**64 - 1, 2**64 - 2, 2**53 + 1, 0]
    path = tmp_path / "a.skeleton"
    path.write_bytes(text_of([dict.fromkeys(ids, POSE)]))
    assert compiled(path).body.tolist() == ids


def test_one_file_after_another(tmp_path, compiled):
    """A longer file leaves nothing behind that shows in a shorter one."""
    for frames in (30, 2, 50, 1):
        assert check(compiled, tmp_path / "a.skeleton", recording(frames))


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
def test_blanks_and_line_ends_do_not_matter(tmp_path, compiled, change):
    path = tmp_path / "a.skeleton"
    assert check(compiled, path, change(SEVERAL))
    assert_same(compiled(path), parse(SEVERAL))


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "inf", "1E+39", "-1e400"])
def test_a_pixel_need_not_be_finite(tmp_path, compiled, word):
    lines = recording(1).decode().splitlines()
    words = lines[FIRST_JOINT].split()
    words[5] = word
    lines[FIRST_JOINT] = " ".join(words)
    assert check(compiled, tmp_path / "a.skeleton", "\n".join(lines).encode())


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


@pytest.mark.parametrize(("data", "line", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_its_line(tmp_path, compiled, data, line, reason):
    path = tmp_path / "a.skeleton"
    assert not check(compiled, path, data)
    with pytest.raises(SkeletonError) as refusal:
        compiled(path)
    assert reason in refusal.value.reason
    if line is not None or "in any" in reason:
        assert refusal.value.line == line
    if line is not None:
        assert str(refusal.value).startswith(f"line {line}: ")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_cut_at_any_byte_is_noticed(tmp_path, compiled, end):
    """Of the first lines and the last; of the joints between, which are alike, where lines end."""
    whole = text_of([{BODY: POSE}, {BODY: POSE + 0.1}]).replace(b"\n", end)
    path = tmp_path / "a.skeleton"
    expected = parse(whole)
    ends = [at for at, byte in enumerate(whole) if byte == end[0]]
    around = {at + n for at in ends for n in range(-1, 3) if at + n < len(whole)}
    for length in sorted({*range(ends[5]), *around, *range(ends[-2], len(whole))}):
        path.write_bytes(whole[:length])
        if length >= len(whole) - len(end):  # nothing but the end of the last line is missing
            assert_same(compiled(path), expected)
        else:
            with pytest.raises(SkeletonError):
                compiled(path)


def test_a_cut_in_a_file_that_ends_without_bodies_is_noticed(tmp_path, compiled):
    whole = text_of([{BODY: POSE}, {}, {}])
    path = tmp_path / "a.skeleton"
    for length in range(len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SkeletonError):
            compiled(path)


def test_what_cannot_be_a_recording_is_not_loaded(tmp_path, compiled):
    path = tmp_path / "a.skeleton"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # takes no room on disk
    with pytest.raises(SkeletonError, match="2147483648 bytes; expected at most"):
        compiled(path)


# --- hypothesis ---------------------------------------------------------------------------------

MANY = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
BASES = [SEVERAL, SEVERAL.replace(b"\n", b"\r\n"), text_of([{1: POSE}, {2: POSE}], " \n")]
PIECES = [bytes([byte]) for byte in b"0123456789.-+eE \n\r\t_NnaAiI"]


@MANY
@given(base=st.sampled_from(BASES), changes=mutations(*PIECES))
def test_a_mutated_file_is_read_right_or_refused(tmp_path, compiled, base, changes):
    check(compiled, tmp_path / "a.skeleton", mutated(base, changes))


@MANY
@given(data=st.binary(max_size=200) | st.text("0123456789 \n", max_size=200).map(str.encode))
def test_anything_else_is_refused(tmp_path, compiled, data):
    assert not check(compiled, tmp_path / "a.skeleton", data)


finite = st.floats(-999, 999)
NOTATIONS = (
    repr, str, "{:.7G}".format, "{:e}".format, "{:+.3f}".format, "{:.17g}".format,
    "{:.25f}".format, "{:.0f}.".format, lambda x: f"{abs(x) % 1:.9f}"[1:], "{:012.4f}".format,
    "{:.1f}".format, "{:.14f}".format, "{:.15e}".format,
)  # fmt: skip


@MANY
@given(numbers=st.lists(finite, min_size=3, max_size=3), write=st.sampled_from(NOTATIONS))
@example(numbers=[-0.0, 0.0, 1e-45], write=repr)
@example(numbers=[5e-324, 1.401298464e-45, -7.006492321624085e-46], write=repr)
@example(numbers=[16777217.0 / 1e5, 0.1 + 2**-54, 999.9999999999], write=repr)
def test_numbers_are_those_of_float(tmp_path, compiled, numbers, write):
    words = [write(number) for number in numbers]
    lines = recording(1).decode().splitlines()
    rest = lines[FIRST_JOINT].split()[3:]
    lines[FIRST_JOINT] = " ".join([*words, *rest])
    path = tmp_path / "a.skeleton"
    assert check(compiled, path, "\n".join(lines).encode())
    found = compiled(path).joints[0, 1, :3]
    expected = np.array([float(word) for word in words]).astype(np.float32)
    assert found.tobytes() == expected.tobytes()  # also the sign of a zero


# --- without a compiler -------------------------------------------------------------------------


def test_without_a_compiler_files_are_read_slowly(tmp_path, monkeypatch):
    def none_found(name, sources):
        raise BuildError("there is no C++ compiler")

    monkeypatch.setattr(reader, "build_extension", none_found)
    reader._parser.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="line by line.*there is no C.. compiler"):
            assert check(read_skeleton, tmp_path / "a.skeleton", SEVERAL)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one warning is enough
            assert check(read_skeleton, tmp_path / "a.skeleton", SEVERAL)
        assert not check(read_skeleton, tmp_path / "a.skeleton", SEVERAL[:-2])
    finally:
        reader._parser.cache_clear()
