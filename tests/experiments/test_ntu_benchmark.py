"""The comparison of readers is fair, and the committed result says what was promised."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.datasets.ntu import benchmark
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.samples import missing
from tests.experiments.fake_ntu import oracle

RESULT = Path(__file__).parents[2] / "paper/results/ntu_reader.json"


def test_all_read_the_same(tmp_path):
    path = tmp_path / "a.skeleton"
    path.write_bytes(benchmark.make_text(0, frames=3))
    frames, *arrays = oracle(path.read_bytes())
    assert frames == 3 and arrays[3].shape == (6, 25, 12)
    for found in (read_skeleton(path), benchmark.read_lines(path)):
        assert found.frames == 3
        for name, array in zip(("frame", "body", "fields", "joints"), arrays, strict=True):
            np.testing.assert_array_equal(getattr(found, name), array)


def test_the_files_are_of_realistic_size():
    text = benchmark.make_text(0).decode()
    assert text.startswith("100\r\n2\r\n")
    words = text.split()
    assert 8 < np.mean([len(word) for word in words if "." in word]) < 10


def test_names_are_different_and_converted():
    samples = benchmark.some_samples(20_000)
    assert len(set(samples)) == 20_000 and not missing().intersection(samples)


def test_the_command_writes_all_it_promises(tmp_path, capsys):
    output = tmp_path / "new" / "result.json"
    benchmark.main(
        ["--files", "2", "--converted", "3", "--repetitions", "1", "--workers", "1",
         "--output", str(output)]
    )  # fmt: skip
    report = json.loads(output.read_text())
    assert report.keys() == {
        "environment", "frames", "bodies", "bytes", "repetitions", "reading", "conversion",
    }  # fmt: skip
    assert report["reading"].keys() == {"reader", "lines"}
    for entry in report["reading"].values():
        low, high = entry["ratio_quartiles"]
        assert low <= entry["ratio"] * 1.001 and high >= entry["ratio"] * 0.999
    done = report["conversion"]
    assert (done["files"], done["workers"], done["all"]) == (3, 1, 56_880)
    assert done["minutes_for_all"] == pytest.approx(56_880 / done["files_per_second"] / 60)
    printed = capsys.readouterr().out
    assert "converted 3 files" in printed and str(output) in printed


def test_bad_arguments_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--files", "0"])
    assert "at least 1" in capsys.readouterr().err


def test_the_committed_result():
    result = json.loads(RESULT.read_text())
    assert (result["frames"], result["bodies"]) == (100, 2)
    assert result["reading"]["lines"]["ratio"] >= 20
    assert result["conversion"]["workers"] == 2
    assert result["conversion"]["minutes_for_all"] < 15
    assert result["environment"]["git_commit"]
