"""ECG recordings and spoken digits, from small files in their formats, sound and spoiled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets import DataError, cinc2017, fsdd
from experiments.datasets.__main__ import main
from experiments.datasets.recordings import open_recordings

from .fake_signals import mat_bytes, wav_bytes, write_cinc, write_fsdd
from .mutations import converted, edit, mutated, mutations, reasons

SAMPLES = np.arange(-20, 20, dtype=np.int16)
MODULES = {"cinc2017": cinc2017, "fsdd": fsdd}
WRITERS = {"cinc2017": write_cinc, "fsdd": write_fsdd}


def convert(module, raw):
    return module.convert(raw, raw.parent / "out")


# --- what is read -------------------------------------------------------------------------------


def test_ecg_recordings_are_whole_and_in_mv(tmp_path):
    written = write_cinc(tmp_path / "raw", "NAO~")
    recordings = convert(cinc2017, tmp_path / "raw")
    assert recordings.labels.tolist() == [0, 1, 2, 3] and not recordings.rejected
    assert recordings.names.tolist() == [*written] and recordings.about == cinc2017.ABOUT
    assert recordings.subjects.tolist() == [1, 2, 3, 4]
    for index, samples in enumerate(written.values()):
        np.testing.assert_array_equal(recordings[index][:, 0], (samples / 1000).astype(np.float32))


def test_the_labels_may_have_a_heading_line(tmp_path):
    write_cinc(tmp_path / "raw", "AN")
    file = tmp_path / "raw" / "REFERENCE.csv"
    file.write_bytes(b"data_source,class\r\n" + file.read_bytes().replace(b"\n", b"\r\n"))
    recordings = convert(cinc2017, tmp_path / "raw")
    assert recordings.labels.tolist() == [1, 0] and not recordings.rejected


def test_spoken_digits_have_speaker_and_index(tmp_path):
    written = write_fsdd(tmp_path / "raw", ("lucas", "george"), 2, 2)
    recordings = convert(fsdd, tmp_path / "raw")
    assert not recordings.rejected and recordings.about == fsdd.ABOUT
    for index, name in enumerate(recordings.names.tolist()):
        digit, speaker, number = name.split("_")
        assert recordings.labels[index] == int(digit)
        assert fsdd.SPEAKERS[recordings.subjects[index]] == speaker
        assert recordings.columns["index"][index] == int(number)
        np.testing.assert_array_equal(recordings[index][:, 0] * 2**15, written[name])


# --- what is rejected ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("A00001.mat", b"val", b"vol", "A00001.mat: "),
        ("A00001.mat", b"\x1e\0", b"\0\0", "A00001.mat: "),
        ("REFERENCE.csv", b"A00001,N\n", b"", "A00001.mat: REFERENCE.csv has no label of it"),
        ("REFERENCE.csv", b"A00001,N", b"A00001,X", "A00001.mat: its label is 'X'; expected one"),
        ("REFERENCE.csv", b"A00001,N", b"A00001", "REFERENCE.csv, line 1: expected 2 fields; got"),
        ("REFERENCE.csv", b"A00001,N", b"A00009,N", "REFERENCE.csv, line 1: there is no A00009"),
        ("REFERENCE.csv", b"A00002,A", b"A00001,A",
         "REFERENCE.csv, line 2: a second label of A00001, after that in line 1; none is taken"),
    ],
)  # fmt: skip
def test_a_bad_ecg_file_is_named_and_the_rest_is_read(tmp_path, file, old, new, reason):
    raw = tmp_path / "raw"
    write_cinc(raw, "NAO")
    edit(raw / file, old, new)
    recordings = convert(cinc2017, raw)
    assert "A00001" not in recordings.names and "A00003" in recordings.names
    assert any(one.startswith(reason) for one in reasons(recordings))


@pytest.mark.parametrize("cut", [0, 10, 24, 25, 60])
def test_a_truncated_ecg_is_named(tmp_path, cut):
    raw = tmp_path / "raw"
    write_cinc(raw, "NAO")
    (raw / "A00002.mat").write_bytes((raw / "A00002.mat").read_bytes()[:cut])
    recordings = convert(cinc2017, raw)
    assert recordings.names.tolist() == ["A00001", "A00003"]
    assert reasons(recordings) == [f"A00002.mat: {cut} bytes are not a row of int16 named val"]


WAV = wav_bytes(SAMPLES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no sound can be read: it ends early"),
        (WAV[:-1], "123 bytes; expected 124, with 40 samples"),
        (WAV[:50], "50 bytes; expected 124, with 40 samples"),
        (WAV + b"x", "125 bytes; expected 124"),
        (b"x" * 200, "no sound can be read"),
        (wav_bytes(SAMPLES[:0]), "the file holds no samples"),
        (wav_bytes(SAMPLES, rate=16000), "1 channels of 16 bit at 16000 Hz; expected one of"),
        (wav_bytes(SAMPLES, channels=2), "2 channels of 16 bit at 8000 Hz"),
        (wav_bytes(SAMPLES, width=1), "1 channels of 8 bit at 8000 Hz"),
    ],
)  # fmt: skip
def test_a_bad_sound_is_named_and_the_rest_is_read(tmp_path, data, reason):
    raw = tmp_path / "raw"
    write_fsdd(raw, ("theo",), 1, 1)
    (raw / "1_theo_1.wav").write_bytes(data)
    recordings = convert(fsdd, raw)
    assert recordings.names.tolist() == ["0_theo_0"]
    [found] = reasons(recordings)
    assert found.startswith(f"1_theo_1.wav: {reason}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("10_theo_1.wav", "the name is not {digit}_{speaker}_{index}.wav"),
        ("1_theo.wav", "the name is not"), ("1_bob_1.wav", "the speaker bob is none of george"),
    ],
)  # fmt: skip
def test_sounds_with_other_names_are_rejected(tmp_path, name, reason):
    raw = tmp_path / "raw"
    write_fsdd(raw, ("theo",), 1, 1)
    (raw / name).write_bytes(WAV)
    [found] = reasons(convert(fsdd, raw))
    assert found.startswith(f"{name}: {reason}")


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_an_empty_folder_is_an_error(tmp_path, module):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"there is no recording|must hold REFERENCE.csv"):
        convert(module, tmp_path / "raw")


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_the_command_takes_a_folder_and_says_what_differs(tmp_path, capsys, name):
    WRITERS[name](tmp_path / "raw")
    assert main([name, "--raw", str(tmp_path / "raw"), "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    problem = MODULES[name].difference(tmp_path / "raw")
    assert problem is not None and problem in shown.err and problem in shown.out
    assert open_recordings(tmp_path / name).about.source.endswith(f"; {problem}")


def test_the_command_lists_what_was_rejected(tmp_path, capsys):
    write_fsdd(tmp_path / "raw", ("theo",), 1, 1)
    (tmp_path / "raw" / "1_theo_1.wav").write_bytes(b"")
    assert main(["fsdd", "--raw", str(tmp_path / "raw"), "--root", str(tmp_path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert "rejected: 1" in lines and any(line.startswith("1_theo_1.wav: ") for line in lines)


# --- mutated files ------------------------------------------------------------------------------

fuzzed = settings(max_examples=120)
NUMBERS = (b"0", b"1", b"-", b"300", b" ", b"\r\n", b",", b'"', b"\x00", b"\xff")


@fuzzed
@given(mutations(*NUMBERS), st.sampled_from(["A00001.mat", "REFERENCE.csv"]))
def test_mutated_ecg_files_are_read_right_or_named(changes, file):
    files = {"REFERENCE.csv": b"A00001,N\nA00002,A\n"}
    files |= {f"{name}.mat": mat_bytes(SAMPLES) for name in ("A00001", "A00002")}
    files[file] = mutated(files[file], changes)
    frames, problems = converted(cinc2017.convert, files)
    if file != "REFERENCE.csv":
        assert "A00002" in frames and len(frames) + len(problems) == 2
    if frames is None or "A00001" not in frames:
        assert problems
        return
    assert frames["A00001"].shape[0] == len(files["A00001.mat"][24:]) // 2
    if file != "A00001.mat":  # a changed sample is a sample
        np.testing.assert_array_equal(frames["A00001"][:, 0], (SAMPLES / 1000).astype(np.float32))


@fuzzed
@given(mutations(b"RIFF", b"data", b"fmt ", b"\x02\x00", b"\xff\xff\xff\x7f"))
def test_mutated_sounds_are_read_right_or_named(changes):
    data = mutated(WAV, changes)
    frames, problems = converted(fsdd.convert, {"1_theo_1.wav": data, "2_theo_1.wav": WAV})
    assert len(frames) + len(problems) == 2
    np.testing.assert_array_equal(frames["2_theo_1"][:, 0] * 2**15, SAMPLES)
    if "1_theo_1" in frames and len(data) == len(WAV) and data[:44] == WAV[:44]:
        np.testing.assert_array_equal(
            frames["1_theo_1"][:, 0] * 2**15, np.frombuffer(data[44:], "<i2")
        )


@given(st.integers(0, len(WAV) - 1))
def test_a_truncated_sound_is_never_read(size):
    with pytest.raises(DataError):
        fsdd.read_samples(WAV[:size])
