"""Classification of signals: splits, batches, scores, and training on small recordings."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from experiments.datasets import cinc2017, fsdd
from experiments.datasets.recordings import Description, join
from experiments.models import BlockClassifier
from experiments.sequences import Key, batches_of_epoch, in_order
from experiments.signals import bootstrap
from experiments.signals.bootstrap import interval
from experiments.signals.dataset import SignalDataset, longest_first, normalised
from experiments.signals.folds import make_folds
from experiments.tasks.signals import SignalsConfig
from experiments.train.__main__ import main
from experiments.train.config import ConfigError
from experiments.train.loop import train
from experiments.train.objectives import Classification, MeanF1
from experiments.train.run import Run
from experiments.train.runs import train_all
from tests.experiments.small_runs import words

from .fake_signals import write_cinc, write_fsdd, write_own

CPU = torch.device("cpu")
SMALL = {
    "hidden_size": 8, "width": 8, "num_layers": 1, "epochs": 2, "batch_size": 4,
    "memory": "reversible", "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cinc(folder / "raw-cinc")
    write_fsdd(folder / "raw-fsdd")
    cinc2017.convert(folder / "raw-cinc", folder / "cinc2017")
    fsdd.convert(folder / "raw-fsdd", folder / "fsdd")
    write_own(folder / "own", people=6)
    return folder


def config(root, data_set="cinc2017", **given):
    return SignalsConfig.of(**{"data_set": data_set, "data": root, **SMALL, **given})


def made_up(labels, subjects=None, seed=0):
    generator = np.random.default_rng(seed)
    about = Description(
        "made up", "signal", tuple("abc"[: max(labels) + 1]), 1.0, "nowhere", ("x",)
    )
    frames = [generator.normal(size=(int(generator.integers(2, 90)), 1)) for _ in labels]
    who = np.arange(len(labels)) if subjects is None else subjects
    return join(about, frames, labels, who, [f"r{i}" for i in range(len(labels))], {})


# --- splits -------------------------------------------------------------------------------------


def test_each_recording_is_tested_once_and_classes_are_shared_out():
    recordings = made_up([0] * 100 + [1] * 40 + [2] * 20)
    folds = make_folds(recordings, "folds", 5)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(160))
    for fold in folds:
        assert sorted(np.concatenate([fold.train, fold.val, fold.test])) == list(range(160))
        assert np.bincount(recordings.labels[fold.test]).tolist() == [20, 8, 4]
        assert np.bincount(recordings.labels[fold.val]).tolist() == [10, 4, 2]
    again = make_folds(recordings, "folds", 5)
    assert all((one.val == other.val).all() for one, other in zip(folds, again, strict=True))


def test_groups_are_not_divided():
    generator = np.random.default_rng(0)
    subjects = generator.integers(0, 30, 200)
    recordings = made_up(generator.integers(0, 2, 200).tolist(), subjects)
    for fold in make_folds(recordings, "folds", 4):
        parts = [{*subjects[part]} for part in (fold.train, fold.val, fold.test)]
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 30


def test_the_official_test_has_the_first_five_indices(root):
    recordings = config(root, "fsdd").load()
    [fold] = make_folds(recordings, "official", 5)
    indices = recordings.columns["index"]
    assert {*indices[fold.test]} == set(range(5)) and len(fold.test) == 45
    assert {*indices[fold.train]} | {*indices[fold.val]} == {5, 6, 7, 8}
    assert len(fold.val) >= 3 and not {*fold.val} & {*fold.train}


def test_a_speaker_is_left_out_and_another_validates(root):
    recordings = config(root, "fsdd").load()
    folds = make_folds(recordings, "speaker", 5)
    assert [fold.name for fold in folds] == ["speaker george", "speaker lucas", "speaker theo"]
    for fold in folds:
        people = [{*recordings.subjects[part]} for part in (fold.train, fold.val, fold.test)]
        assert [len(one) for one in people] == [1, 1, 1] and len(set.union(*people)) == 3


@pytest.mark.parametrize("seed", range(12))
def test_validation_has_every_class_where_it_can(seed):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 4, (12, 3))  # of each person and class
    labels = np.concatenate([np.repeat(range(3), person) for person in counts])
    recordings = made_up(labels.tolist(), np.repeat(range(12), counts.sum(1)))
    for fold in make_folds(recordings, "folds", 4):
        for part in (fold.train, fold.val, fold.test):
            assert {*recordings.labels[part]} == {0, 1, 2}


@pytest.mark.parametrize(
    ("labels", "subjects", "folds", "message"),
    [
        ([0] * 20, None, 5, "two classes or more; all are of 'a'"),
        ([0] * 20 + [1] * 4, None, 5, "class 'b' has 4 recordings; 5 folds need 5 of each class"),
        ([0, 0, 1], None, 5, "class 'b' has 1 recording; 5 folds need"),
        ([0, 1] * 10, [0, 0, 1, 1, 2] * 4, 5, "class 'a' has 3 groups; 5 folds need 5 of each"),
        ([0, 1] * 2, None, 2, "the class 'a' has no recording in the val part"),
    ],
)
def test_what_cannot_be_split_is_named(labels, subjects, folds, message):
    with pytest.raises(ConfigError, match=message):
        make_folds(made_up(labels, subjects), "folds", folds)


# --- sequences and batches ----------------------------------------------------------------------


def test_offset_and_gain_do_not_matter():
    frames = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    shown = normalised(frames)
    assert np.median(shown, axis=0) == pytest.approx(0, abs=1e-6)
    assert np.percentile(np.abs(shown), 99, axis=0) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(normalised(frames * [3, 0.1] + [5, -1]), shown, atol=1e-5)


@pytest.mark.parametrize(("frames", "expected"), [
    ([[2.0]] * 3, [0, 0, 0]), ([[1.0]] * 400 + [[5.0]], [0] * 400 + [1]), ([[7.0]], [0]),
], ids=["constant", "one spike", "one step"])  # fmt: skip
def test_constant_signals_are_zero(frames, expected):
    shown = normalised(np.array(frames, np.float32))
    assert shown.dtype == np.float32 and shown[:, 0].tolist() == expected


def dataset(recordings, flip=0.0, scale=0.0, seed=0):
    chosen = longest_first(recordings, np.arange(len(recordings)))
    return SignalDataset(recordings, chosen, flip, scale, seed)


def test_augmentation_changes_sign_and_size_in_training_alone():
    data = dataset(made_up([0, 1] * 20), flip=0.5, scale=0.2)
    plain = torch.cat([data[Key(i)][0] for i in range(40)])
    assert plain.equal(torch.cat([dataset(data.recordings)[Key(i, 3)][0] for i in range(40)]))
    factors = [
        (data[Key(i, epoch)][0].ravel() @ data[Key(i)][0].ravel()).item()
        / data[Key(i)][0].square().sum().item()
        for epoch in range(5)
        for i in range(40)
    ]
    assert 0.8 <= min(map(abs, factors)) < 0.85 and 1.15 < max(map(abs, factors)) <= 1.2
    assert 60 < sum(factor < 0 for factor in factors) < 140


@given(st.integers(1, 300), st.integers(1, 20), st.none() | st.integers(1, 2000),
       st.integers(0, 3))  # fmt: skip
def test_batches_have_each_sequence_at_most_once_and_keep_the_bound(count, size, bound, epoch):
    data = dataset(made_up([0] * count))
    batches = batches_of_epoch(data, size, bound, epoch)
    drawn = [sequence for batch in batches for sequence in batch]
    assert len(drawn) == len({*drawn}) and {*drawn} <= {*range(count)}
    if bound is None:
        assert [len(batch) for batch in batches] == [size] * (count // size)
        return
    assert len(drawn) == count
    for batch in batches:
        padded = len(batch) * data.lengths[batch].max()
        assert len(batch) <= size and (padded <= bound or len(batch) == 1)


def test_batches_have_little_padding_and_differ_from_epoch_to_epoch():
    data = dataset(made_up([0, 1] * 500))
    batches = batches_of_epoch(data, 16, None, 0)
    padded = sum(len(batch) * data.lengths[batch].max() for batch in batches)
    real = sum(data.lengths[batch].sum() for batch in batches)
    assert padded / real < 1.1  # 1.9 if lengths are mixed
    assert batches == batches_of_epoch(data, 16, None, 0)
    assert {*map(frozenset, batches)} & {*map(frozenset, batches_of_epoch(data, 16, None, 1))} == (
        set()
    )
    longest = [data.lengths[batch].max() for batch in batches]
    assert np.abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.4  # not in their order


def test_the_test_has_all_sequences_in_order():
    data = dataset(made_up([0, 1] * 20))
    for bound in (None, 100):
        batches = list(in_order(data, 8, bound, 0))
        labels = torch.cat([y for _, y in batches])
        assert labels.tolist() == data.recordings.labels[data.chosen].tolist()


@pytest.mark.parametrize("bound", [None, 150])
def test_a_resumed_epoch_has_the_rest_of_the_batches(root, bound):
    task = config(root, fold=0, steps_per_batch=bound).task(CPU)
    whole, rest = list(task.train_batches(1, 0)), list(task.train_batches(1, 2))
    assert len(whole) == task.steps_per_epoch and len(rest) == len(whole) - 2
    for (x, y), (again, labels) in zip(whole[2:], rest, strict=True):
        assert y.equal(labels)
        one, other = (z[0] if isinstance(z, tuple) else z for z in (x, again))
        assert one.equal(other)


# --- scores -------------------------------------------------------------------------------------

classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(classes)
def test_the_score_is_the_mean_f1_of_the_first_classes(pairs):
    predictions, labels = np.array(pairs).T
    expected = f1_score(labels, predictions, labels=[0, 1, 2], average="macro", zero_division=0)
    assert MeanF1(3).score(predictions, labels) == pytest.approx(expected)


def test_an_interval_has_the_width_of_the_standard_error():
    labels = np.zeros(1000, np.int64)
    predictions = (np.arange(1000) < 200).astype(np.int64)
    found = interval(Classification(), predictions, labels)
    error = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert found["low"] == pytest.approx(0.8 - error, abs=0.003)
    assert found["high"] == pytest.approx(0.8 + error, abs=0.003)
    assert found == interval(Classification(), predictions, labels)


# --- training -----------------------------------------------------------------------------------


def test_the_network_is_of_gated_blocks_unless_others_are_wanted(root):
    ours = SignalsConfig.of().model
    assert (ours.name, ours.memory, ours.read) == ("block", "reversible", "mean")
    assert isinstance(Run(config(root, fold=0)).network, BlockClassifier)
    assert SignalsConfig.of(model="irevrnn").model.memory == "recompute"


def test_an_ecg_network_is_chosen_and_tested_by_its_mean_f1(root, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    run = config(root, fold=1, settings_tried=7, out=tmp_path, lr=2e-2, epochs=3)
    results = train(run, progress=False)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["settings_tried"] == 7 and "settings_tried" not in written["config"]
    best = max(results["history"], key=lambda row: (row["val_mean_f1"], -row["val_loss"]))
    assert results["best_epoch"] == best["epoch"] and "train_accuracy" in best
    predictions, labels = (np.array(results[f"test_{name}"]) for name in ("predictions", "labels"))
    assert results["test_mean_f1"] == MeanF1(3).score(predictions, labels)
    assert results["test_accuracy"] == (predictions == labels).mean()
    assert np.array(results["confusion_matrix"]).sum(1).tolist() == [2] * 4
    recordings = run.load()
    by_name = dict(zip(recordings.names.tolist(), recordings.labels.tolist(), strict=True))
    assert [by_name[name] for name in results["test_names"]] == labels.tolist()
    found = results["test_mean_f1_interval"]
    assert found["low"] <= results["test_mean_f1"] <= found["high"] and found["resamples"] == 50
    assert "test_subjects" not in results


def test_small_batches_do_not_lower_the_accuracy_in_training(root, tmp_path):
    run = config(root, "fsdd", steps_per_batch=150, out=tmp_path, epochs=4, lr=3e-2)
    history = train_all(run, progress=False)["history"]
    assert history[-1]["train_accuracy"] > 0.5 and history[-1]["train_loss"] < 1


def test_digits_are_learnt(root, tmp_path):
    run = config(root, "fsdd", out=tmp_path, epochs=8, lr=3e-2)
    results = train_all(run, progress=False)
    assert results["test_accuracy"] > 0.8 and {*results["test_subjects"]} == {0, 2, 4}


def test_every_speaker_is_tested_once(root, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    run = config(root, "fsdd", split="speaker", out=tmp_path, epochs=1)
    results = train_all(run, progress=False)
    assert [one["fold"] for one in results["runs"]] == [
        f"speaker {name}" for name in ("george", "lucas", "theo")
    ]
    assert set(results["accuracy_of_subjects"]) == {"0", "2", "4"}


def test_the_folds_of_an_ecg_are_summarised_by_their_mean_f1(root, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    results = train_all(config(root, folds=3, epochs=1, out=tmp_path), progress=False)
    assert results["num_runs"] == 3 and 0 <= results["test_mean_f1"]["mean"] <= 1
    assert np.sum(results["confusion_matrix"]) == 40


@pytest.fixture
def own(root, tmp_path):
    return shutil.copytree(root / "own", tmp_path / "own")


def test_a_folder_of_ones_own_is_trained_on(own, tmp_path, capsys):
    (own / "r0.csv").write_text("1,x\n")
    np.save(own / "r1.npy", np.load(own / "r1.npy") * [1, 0])
    command = words({"model": "block", **SMALL, "folder": own, "folds": 3, "fold": 0}, "signals")
    assert main([*command, f"--out={tmp_path}"]) == 0
    shown = capsys.readouterr()
    assert "left out: r0.csv: line 1: 'x' is no number" in shown.err
    assert "from a constant: channel 2 in 1 of 23 recordings\n" in shown.err
    used = shown.out.splitlines()[0]
    assert used.startswith("settings other than") and "data_set folder" in used
    assert "flip 0.0" in used and "hidden_size 8" in used and "weight_decay" not in used
    assert "own: test_accuracy" in shown.out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["rejected"] == 1 and results["data"]["recordings"] == 23
    assert results["class_names"] == ["calm", "fast"] and results["input_size"] == 2


def test_too_few_recordings_may_be_those_that_were_left_out(own, capsys):
    for number in range(0, 24, 2):
        (own / f"r{number}.csv").write_text("1,x\n")
    assert main(words({"model": "block", **SMALL, "folder": own}, "signals")) == 1
    assert "(12 left out, such as r0.csv: line 1: 'x' is no number)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "fold must be from 0 to 4; got 5"),
        ({"fold": 0, "batch_size": 29}, "batch_size must be at most the 28 training sequences"),
    ],
)
def test_what_the_data_cannot_give_is_named(root, options, message):
    with pytest.raises(ConfigError, match=message):
        config(root, **options).task(CPU)
