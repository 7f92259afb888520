"""Texts as tokens: Tiny Shakespeare by characters, reviews byte by byte, and ListOps."""

import hashlib
import io
import json
import lzma
import statistics
import tarfile
from itertools import islice

import numpy as np
import pytest
import torch

from experiments import catalogue, sampling
from experiments.catalogue import Experiment
from experiments.datasets import DataError, aclimdb, archives, shakespeare
from experiments.datasets.__main__ import main
from experiments.tasks import listops
from experiments.tasks.listops import ListOpsConfig
from experiments.tasks.reviews import ReviewsConfig
from experiments.tasks.shakespeare import VALIDATED, ShakespeareConfig
from experiments.train.config import ConfigError
from experiments.train.loop import train
from experiments.train.run import Run

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 8, "width": 8, "num_layers": 1, "epochs": 2, "batch_size": 4, "lr": 0.03,
    "device": "cpu", "threads": 1,
}  # fmt: skip
PLAY = "to be, or not to be: that is the question.\n" * 800


@pytest.fixture
def play(tmp_path, monkeypatch):
    """The folder of data sets, with a play that counts as the published one."""
    folder = tmp_path / "data"
    (folder / "shakespeare").mkdir(parents=True)
    (folder / "shakespeare" / "input.txt").write_text(PLAY)
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(PLAY.encode()).hexdigest())
    return folder


def write_reviews(folder, parts=("train", "test"), count=20):
    """An archive of made-up reviews, good ones with exclamation marks; return its reviews."""
    (folder / "aclimdb").mkdir(parents=True)
    generator = np.random.default_rng(0)
    written = {}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for part in (*parts, "train/unsup"):
            for label, mark in (("neg", b"?"), ("pos", b"!")):
                for index in range(count):
                    text = mark.join([b"a film"] * int(generator.integers(2, 20)))
                    name = f"aclImdb/{part}/{label}/{index}_5.txt"
                    entry = tarfile.TarInfo(name)
                    entry.size = len(text)
                    archive.addfile(entry, io.BytesIO(text))
                    written.setdefault(part, []).append((text, int(label == "pos")))
    (folder / "aclimdb" / "aclImdb_v1.tar.gz").write_bytes(lzma.compress(data.getvalue()))
    return written


# --- data ---------------------------------------------------------------------------------------


def refuse(address, file):
    raise OSError("no network")


@pytest.mark.parametrize(("module", "name"), [(shakespeare, "shakespeare"), (aclimdb, "aclimdb")])
def test_a_missing_file_is_named_with_its_source(module, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archives, "_download", refuse)
    assert main([name, "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert f"(no network): run the same command again, or download {module.ADDRESS}" in shown
    assert f"put it into {tmp_path / name}" in shown


def test_the_file_is_fetched_once(tmp_path, monkeypatch, capsys):
    fetched = []

    def download(address, file):
        fetched.append(address)
        file.write_text(PLAY)

    monkeypatch.setattr(archives, "_download", download)
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(PLAY.encode()).hexdigest())
    for _ in range(2):
        assert main(["shakespeare", "--root", str(tmp_path)]) == 0
    assert fetched == [shakespeare.ADDRESS]
    assert f"{len(PLAY):,} characters" in capsys.readouterr().out


def test_another_text_is_refused(play):
    (play / "shakespeare" / "input.txt").write_text(PLAY + "!")
    with pytest.raises(DataError, match=r"input\.txt is not as published: delete it, or get it"):
        shakespeare.load_shakespeare(play)


def test_reviews_are_read_from_the_archive(tmp_path, capsys):
    written = write_reviews(tmp_path)
    reviews, digest = aclimdb.load_reviews(tmp_path)
    assert reviews.keys() == {"train", "test"} and len(digest) == 64
    for part, some in reviews.items():
        assert sorted(some) == sorted(written[part])
    assert main(["aclimdb", "--root", str(tmp_path)]) == 0
    assert "40 to train, 40 to test" in capsys.readouterr().out


def test_damaged_archives_are_named(tmp_path):
    write_reviews(tmp_path / "half", parts=("train",))
    with pytest.raises(DataError, match=r"v1\.tar\.gz holds no reviews of both classes in its part"
                                        " test: get it anew from https://ai"):  # fmt: skip
        aclimdb.load_reviews(tmp_path / "half")
    write_reviews(tmp_path / "cut")
    file = tmp_path / "cut" / "aclimdb" / "aclImdb_v1.tar.gz"
    for content in (file.read_bytes()[:200], b"no archive"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"v1\.tar\.gz is damaged \(.*\): get it anew from"):
            aclimdb.load_reviews(tmp_path / "cut")


# --- characters ---------------------------------------------------------------------------------


def language(play, **given):
    return ShakespeareConfig.of(**{"data": play, "window": 50, "dropout": 0.0, **SMALL, **given})


def test_each_character_has_the_next_for_its_target(play):
    task = language(play).task(CPU)
    characters = np.array(task.class_names)

    def text(codes):
        return "".join(characters[codes.numpy()])

    end = len(PLAY) * 9 // 10
    for batches, part in (
        (task.val_batches, PLAY[end - VALIDATED : end]), (task.test_batches, PLAY[end:])
    ):  # fmt: skip
        [(x, y)] = batches()
        assert (text(x[0]), text(y[0])) == (part[:-1], part[1:])
    seen = [x for x, y in task.train_batches(0, 0) if x[:, 1:].equal(y[:, :-1])]
    assert len(seen) == task.steps_per_epoch == ((end - VALIDATED) // 50 - 1) // 4
    rows = [text(row) for x in seen for row in x]
    trained = PLAY[: end - VALIDATED]
    assert {len(row) for row in rows} == {50} and all(row in trained for row in rows)
    again = [x for x, _ in task.train_batches(0, 1)]
    assert len(again) == len(seen) - 1 and again[0].equal(seen[1])
    assert not next(iter(task.train_batches(1, 0)))[0].equal(seen[0])


def test_a_text_is_learnt_and_written(play, repository, monkeypatch):
    fields = {**language(play).identity(), "data": play, **SMALL, "lr": 0.1, "width": 32}
    tiny = Experiment("shakespeare", "Text", "tiny", {**fields, "epochs": 4, "batch_size": 1})
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"shakespeare": tiny})
    result = catalogue.run("shakespeare", progress=False, threads=1)
    assert result["figure"] == "cross_entropy" and "confusion_matrix" not in result
    assert result["test_cross_entropy"]["mean"] < 0.8 < np.log(len({*PLAY}))
    network, characters = sampling.load()
    assert sorted({*PLAY}) == characters
    start = "to be, or "
    written = sampling.write(network, characters, start, 40, temperature=0.05)
    assert len(written) == 50 and written[:16] == "to be, or not to"
    hot = [sampling.write(network, characters, start, 40, 5.0, seed) for seed in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]
    for wrong in ("", "#"):
        with pytest.raises(ValueError, match="start must have one character or more of"):
            sampling.write(network, characters, wrong, 1)


def test_tokens_need_an_embedding(play):
    Run(language(play, model="mingru"))
    with pytest.raises(ConfigError, match="must have gated blocks, to embed tokens; got lstm"):
        Run(ShakespeareConfig.of(data=play, model="lstm", batch_size=4))


# --- reviews ------------------------------------------------------------------------------------


def test_reviews_are_split_and_batched_by_length(tmp_path):
    written = write_reviews(tmp_path)
    fields = SMALL | {"steps_per_batch": 300}
    task = ReviewsConfig.of(data=tmp_path, **fields).task(CPU)

    def read(batches):
        found = []
        for x, labels in batches:
            rows, lengths = x if isinstance(x, tuple) else (x, [x.shape[1]] * len(x))
            assert len(rows) == 1 or rows.numel() <= 300
            found += [
                (bytes(row[:length].tolist()), label)
                for row, length, label in zip(rows, lengths, labels.tolist(), strict=True)
            ]
        return found

    train_reviews, val = read(task.train_batches(0, 0)), read(task.val_batches())
    assert len(val) == task.facts["val_size"] == 4 and task.facts["train_size"] == 36
    assert sorted(read(task.test_batches())) == sorted(written["test"])
    assert sorted([*train_reviews, *val])[::-1] <= sorted(written["train"])[::-1]
    assert {text for text, _ in train_reviews} <= {text for text, _ in written["train"]}


def test_reviews_are_learnt(tmp_path):
    write_reviews(tmp_path, count=60)
    fields = SMALL | {"epochs": 6, "out": tmp_path / "run", "dropout": 0.0}
    result = train(ReviewsConfig.of(data=tmp_path, **fields), progress=False)
    assert result["test_accuracy"] > 0.9 and result["data"]["test_size"] == 120
    assert json.loads((tmp_path / "run" / "results.json").read_text())["forgotten_bits"] > 0


# --- ListOps ------------------------------------------------------------------------------------


def evaluate(tokens, at=0):
    """The value of the expression that begins there, its end and its levels, by recursion."""
    if tokens[at] < 10:
        return tokens[at], at + 1, 1
    arguments, deepest, end = [], 0, at + 1
    while tokens[end] != listops.CLOSE:
        value, end, levels = evaluate(tokens, end)
        arguments.append(value)
        deepest = max(deepest, levels)
    assert 2 <= len(arguments) <= 10
    ways = min, max, lambda some: int(statistics.median(some)), lambda some: sum(some) % 10
    return ways[tokens[at] - 10](arguments), end + 1, 1 + deepest


def test_expressions_have_their_values():
    drawn = [*islice(listops.draw(np.random.default_rng(3)), 300)]
    for tokens, value in drawn:
        assert evaluate(tokens) == (value, len(tokens), listops.LEVELS)
        assert 500 < len(tokens) < 2000
    counts = np.bincount([*b"".join(tokens for tokens, _ in drawn)], minlength=listops.TOKENS)
    assert counts[:10].min() > 0.95 * counts[:10].max()  # each digit is as likely
    assert counts[10:14].min() > 0.95 * counts[10:14].max() and counts[14] == counts[10:14].sum()
    assert {value for _, value in drawn} == {*range(10)}


def test_expressions_are_the_same_in_all_runs_in_another_order():
    fields = {"sequences": 30, "held_out": 10, "batch_size": 4, "epochs": 2}
    one, other = (ListOpsConfig.of(**fields, seed=seed).task(CPU) for seed in (0, 1))
    labels = [[y.tolist() for _, y in task.test_batches()] for task in (one, other)]
    assert labels[0] == labels[1] and sum(map(len, labels[0])) == one.facts["val_size"] == 10
    first, again = ([y.tolist() for _, y in task.train_batches(0, 0)] for task in (one, other))
    assert first != again and len(first) == one.steps_per_epoch == 8
