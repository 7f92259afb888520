"""Action recognition: folds, sampling, views, augmentation, batches, and training on them."""

import dataclasses
import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.action.augment import Augmentation, rotation_matrix
from experiments.action.dataset import SequenceDataset, in_order, shuffled
from experiments.action.folds import make_folds
from experiments.action.sampling import Sampling, take
from experiments.action.views import View, mirrored, starting_pose
from experiments.datasets.ntu.samples import Sample, describe
from experiments.datasets.recordings import open_recordings
from experiments.datasets.watch import load_watch
from experiments.models import SequenceClassifier
from experiments.provenance import provenance
from experiments.sequences import Key, collate, load
from experiments.tasks import action as action_task
from experiments.tasks.action import PRESETS, ActionConfig
from experiments.train.__main__ import main
from experiments.train.config import ConfigError
from experiments.train.loop import train
from experiments.train.networks import GRU, IRevRNN
from experiments.train.runs import train_all
from tests.cases import assert_same_bits

from .fake_skeletons import ABOUT, SUBJECTS, write_fake

PLAIN = View(ABOUT, centre="start", bones=False, motion=False)
STILL = Augmentation(0, 0, 0, 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("utkinect", "msr"):
        write_fake(folder / name)
    return folder


@pytest.fixture(scope="module")
def recordings(root):
    return open_recordings(root / "utkinect")


@pytest.fixture
def small(root, tmp_path):
    return ActionConfig(
        model=IRevRNN(hidden_size=16, num_layers=1), data_set="utkinect", data=root,
        out=tmp_path / "run", epochs=15, batch_size=8, lr=1e-2, device="cpu", threads=1,
    )  # fmt: skip


# --- protocols ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["loso", "5fold"])
@pytest.mark.parametrize("val_subjects", [0, 1, 2])
def test_folds_share_no_subject_and_test_each_recording_once(recordings, protocol, val_subjects):
    folds = make_folds(recordings, "utkinect", protocol, val_subjects)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(recordings)))
    for fold in folds:
        people = [set(recordings.subjects[part]) for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, people)) == len(set.union(*people)) == len(SUBJECTS)
        assert len(people[1]) == val_subjects


def test_folds_of_the_watch_are_those_documented():
    recordings = load_watch()
    folds = make_folds(recordings, "watch", "5fold", 0)
    assert [set(recordings.subjects[fold.test]) for fold in folds] == [
        {1, 6}, {2, 7}, {3, 8}, {4, 9}, {5, 10},
    ]  # fmt: skip


def test_odd_subjects_train_for_msr(recordings):
    [fold] = make_folds(recordings, "msr", "xsub", 0)
    assert set(recordings.subjects[fold.train]) == {1, 3}


@pytest.mark.parametrize(
    ("protocol", "trained"),
    [("xsub", {"S001C001P001R001A001"}), ("xview", {"S001C002P003R001A001"})],
)
def test_the_official_half_of_ntu_trains(protocol, trained):
    samples = [Sample(1, 1, 1, 1, 1), Sample(1, 2, 3, 1, 1), Sample(1, 1, 3, 1, 1)]
    names, subjects = map(np.array, zip(*((str(x), x.subject) for x in samples), strict=True))
    ntu = SimpleNamespace(names=names, subjects=subjects, about=describe(samples))
    [fold] = make_folds(ntu, "ntu60", protocol, 0)
    assert {*names[fold.train]} == trained and {*names[fold.test]} == {*names} - trained


@pytest.mark.parametrize(
    ("protocol", "odd", "message"),
    [
        ("5fold", (0, 1), "'5fold' leaves fold 4 nothing to test: .* subjects 1, 2, 3, 4 alone"),
        ("xsub", (1,), "'xsub' leaves fold 0 nothing to test: .* subjects 1, 3 alone"),
        ("xsub", (0,), "'xsub' leaves fold 0 nothing to train on: .* subjects 2, 4 alone"),
    ],
)
def test_a_fold_without_a_test_is_refused(recordings, protocol, odd, message):
    chosen = np.flatnonzero((recordings.subjects < 6) & np.isin(recordings.subjects % 2, odd))
    few = SimpleNamespace(subjects=recordings.subjects[chosen])
    with pytest.raises(ConfigError, match=message):
        make_folds(few, "msr" if protocol == "xsub" else "utkinect", protocol, 0)


# --- sampling -----------------------------------------------------------------------------------

lengths = st.integers(1, 300)


@given(st.sampled_from(["whole", "segments", "window"]), lengths, st.integers(1, 40),
       st.integers(1, 5), st.floats(0, 0.9), st.integers(0, 99))  # fmt: skip
def test_positions_lie_in_the_recording_and_go_forward(kind, length, frames, clips, time, seed):
    if kind == "window":
        length = max(length, frames)
    sampling = Sampling(kind, frames, clips, hop=7)
    drawn = sampling.draw(length, time, np.random.default_rng(seed))
    shown = [drawn]
    for sequence in range(sampling.sequences(length)):
        shown.extend(sampling.clips_of(length, sequence))
    for positions in shown:
        assert positions.min() >= 0 and positions.max() < length
        assert (np.diff(positions) >= 0).all()
        assert kind == "whole" or len(positions) == frames


def test_one_frame_of_each_segment():
    drawn = Sampling("segments", 10, 3, 1).draw(100, 0, np.random.default_rng(0))
    assert (drawn // 10 == np.arange(10)).all()
    assert len(set(drawn % 10)) > 3
    clips = Sampling("segments", 10, 5, 1).clips_of(100, 0)
    assert clips.tolist() == [[10 * i + k for i in range(10)] for k in (1, 3, 5, 7, 9)]


def test_windows_follow_each_other():
    sampling = Sampling("window", 20, 1, 10)
    assert sampling.sequences(20) == 1 and sampling.sequences(59) == 4
    assert sampling.clips_of(59, 3)[0].tolist() == list(range(30, 50))


def test_time_is_stretched_within_its_limits():
    generator = np.random.default_rng(0)
    draws = [Sampling("window", 21, 1, 1).draw(100, 0.5, generator) for _ in range(200)]
    speeds = [(positions[-1] - positions[0]) / 20 for positions in draws]
    assert 0.5 <= min(speeds) < 0.55 and 1.45 < max(speeds) <= 1.5
    whole = Sampling("whole", 0, 1, 1)
    counts = [len(whole.draw(100, 0.2, generator)) for _ in range(200)]
    assert min(counts) < 80 and max(counts) > 105


def test_between_two_frames_lies_their_mean():
    frames = np.array([[0.0, 1], [2, 5], [4, 4]], np.float32)
    np.testing.assert_allclose(take(frames, np.array([0, 0.5, 2])), [[0, 1], [1, 3], [4, 4]])


# --- views and augmentation ---------------------------------------------------------------------


def test_a_placed_skeleton_starts_at_the_origin_with_its_shoulders_along_x(recordings):
    for index in range(len(recordings)):
        frames = recordings[index]
        placed = PLAIN.place(frames, starting_pose(frames))
        left, right = placed[0, 0, 2], placed[0, 0, 4]
        assert np.abs(placed[0, 0, 0]).max() < 1e-6
        assert right[0] > left[0] and abs(right[2] - left[2]) < 1e-6
        bones = [np.linalg.norm(x[:, :, 1] - x[:, :, 2], axis=-1) for x in (placed, frames)]
        np.testing.assert_allclose(*bones, rtol=1e-4)  # distances stay


def test_a_body_that_is_not_there_stays_zero():
    frames = np.concatenate([np.ones((4, 1, 6, 3)), np.zeros((4, 1, 6, 3))], 1).astype(np.float32)
    frames[0, 0] = 0
    placed = PLAIN.place(frames, starting_pose(frames))
    assert not placed[:, 1].any() and not placed[0].any()
    np.testing.assert_array_equal(starting_pose(frames), np.ones((6, 3)))


def test_centring_each_frame_takes_paths_away(recordings):
    view = dataclasses.replace(PLAIN, centre="frames")
    frames = recordings[0]
    assert np.abs(view.place(frames, starting_pose(frames))[:, 0, 0]).max() < 1e-6


def test_bones_and_motion_are_further_channels(recordings):
    frames = recordings[0]
    view = dataclasses.replace(PLAIN, bones=True, motion=True)
    rows = view.channels(frames)
    assert rows.shape == (len(frames), 2 * (6 * 3 + 5 * 3))
    np.testing.assert_allclose(rows[:, 18:21], frames[:, 0, 1] - frames[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(rows[1:, 33:36], np.diff(frames[:, 0, 0], axis=0), atol=1e-6)
    assert not rows[0, 33:].any()


def test_a_mirror_image_of_a_mirror_image_is_the_original(recordings):
    frames = recordings[0]
    there = mirrored(frames, ABOUT)
    np.testing.assert_array_equal(there[:, :, 3] * [-1, 1, 1], frames[:, :, 5])
    np.testing.assert_array_equal(mirrored(there, ABOUT), frames)


def test_a_mirrored_left_arm_moves_like_a_right_one():
    recordings = load_watch()
    left, right = ([i for i in range(140) if recordings.columns["side"][i] == s] for s in (0, 1))

    def mean(indices, change=lambda frames: frames):
        return np.mean([change(recordings[i]).mean(0) for i in indices], axis=0)

    apart = np.abs(mean(left) - mean(right))[0]
    near = np.abs(mean(left, lambda frames: mirrored(frames, recordings.about)) - mean(right))
    assert apart > 1 and near.max() < 0.1


def test_a_rotation_turns_by_its_angle():
    quarter = rotation_matrix(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    turn = rotation_matrix(np.array([0.3, -0.2, 0.5]))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(rotation_matrix(np.zeros(3)), np.eye(3))


def test_augmentation_keeps_to_its_limits(recordings):
    frames = recordings[0]
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(STILL(frames, ABOUT, generator), frames)
    size = np.linalg.norm(frames)
    for _ in range(50):
        turned = Augmentation(30, 0, 0, 0)(frames, ABOUT, generator)
        np.testing.assert_allclose(np.linalg.norm(turned), size, rtol=1e-5)
        assert not np.allclose(turned, frames)
        scaled = Augmentation(0, 0.1, 0, 0)(frames, ABOUT, generator)
        assert 0.9 <= np.linalg.norm(scaled) / size <= 1.1
        sheared = Augmentation(0, 0, 0.1, 0)(frames, ABOUT, generator)
        assert 0 < np.abs(sheared - frames).max() <= 0.2 * np.abs(frames).max() + 1e-6
    np.testing.assert_array_equal(
        Augmentation(0, 0, 0, 1)(frames, ABOUT, generator), mirrored(frames, ABOUT)
    )


# --- batches ------------------------------------------------------------------------------------


def dataset(recordings, sampling, seed=0):
    everyone = np.arange(len(recordings))
    augmentation = Augmentation(10, 0.1, 0, 0)
    data = SequenceDataset(recordings, everyone, sampling, PLAIN, augmentation, 0.1, seed)
    data.measure()
    return data


def flat(batches):
    return [
        part
        for x, y in batches
        for part in (*(x if isinstance(x, tuple) else (x,)), y)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["whole", "segments"])
def test_batches_do_not_depend_on_workers_and_can_be_skipped(recordings, kind):
    data = dataset(recordings, Sampling(kind, 7, 2, 1))
    alone = flat(shuffled(data, 8, 0, epoch=1, skip=0))
    helped = flat(shuffled(data, 8, 2, epoch=1, skip=0))
    later = flat(shuffled(data, 8, 0, epoch=1, skip=3))
    assert_same_bits(alone, helped)
    assert_same_bits(alone[-len(later) :], later)
    assert len(later) < len(alone)
    assert not torch.equal(flat(shuffled(data, 8, 0, epoch=2, skip=0))[0], alone[0])


def test_training_varies_and_test_does_not(recordings):
    data = dataset(recordings, Sampling("segments", 7, 3, 1))
    first, second = (data[Key(0, epoch)][0] for epoch in (0, 1))
    assert first.shape == (7, 18) and not torch.equal(first, second)
    assert torch.equal(data[Key(0, 1)][0], second)
    assert data[Key(0)][0].shape == (3, 7, 18) and torch.equal(data[Key(0)][0], data[Key(0)][0])


def test_features_are_scaled_by_the_training_data(recordings):
    data = dataset(recordings, Sampling("whole", 0, 1, 1))
    rows = torch.cat([data[Key(i)][0][0] for i in range(len(data))])
    assert rows.mean(0).abs().max() < 1e-4
    assert ((rows.std(0, correction=0) - 1).abs() < 1e-4).sum() >= 15


def test_workers_leave_signals_to_the_main_process(recordings):
    data = dataset(recordings, Sampling("whole", 0, 1, 1))
    batches = load(data, [[index] for index in range(12)], workers=1)
    for _ in range(3):
        next(batches)
        for worker in batches._workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
    assert len([*batches]) == 9


def test_short_sequences_are_filled_up_behind_their_end():
    items = [(torch.full((length, 2), float(length)), length) for length in (2, 4, 3)]
    (padded, lengths), labels = collate(items)
    assert padded.shape == (3, 4, 2) and lengths.tolist() == labels.tolist() == [2, 4, 3]
    assert (padded == torch.tensor([2.0, 4, 3])[:, None, None]).all()


@pytest.mark.parametrize(
    "model",
    [
        SequenceClassifier(18, 3, 8, 2, norm="batch", residual=True),
        SequenceClassifier(18, 3, 8, 2, norm="batch", read="mean"),
    ],
    ids=["last", "mean"],
)
def test_company_does_not_change_what_a_sequence_is_taken_for(recordings, model):
    data = dataset(recordings, Sampling("whole", 0, 1, 1))
    model.eval()
    (x, lengths), _ = next(in_order(data, 20, 0))
    together = model(x.flatten(0, 1), lengths)
    alone = torch.cat([model(data[Key(i)][0]) for i in range(20)])
    torch.testing.assert_close(together, alone)


def test_what_fills_up_a_batch_is_not_normalised_with():
    """In training, too, a batch gives the same whatever stands behind the ends."""
    model = SequenceClassifier(18, 3, 8, 2, norm="batch")
    x, lengths = torch.randn(4, 30, 18), torch.tensor([30, 7, 19, 1])
    beyond = torch.arange(30) >= lengths[:, None]
    logits = [model(x.masked_fill(beyond[..., None], filling), lengths) for filling in (0.0, 1e3)]
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], model(x))


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling": "segments", "frames": 6, "clips": 3, "bones": True, "motion": True},
        {"model": IRevRNN(hidden_size=16, num_layers=2, residual=True), "average": 0.9},
        {"model": GRU(hidden_size=16, num_layers=1), "label_smoothing": 0.1},
        {"rotation": 10.0, "scale": 0.1, "shear": 0.05, "time": 0.1},
    ],
    ids=str,
)
def test_movements_are_learnt(small, options):
    config = dataclasses.replace(small, fold=0, **options)
    results = train_all(config, progress=False)
    assert results["test_accuracy"] > 0.8
    assert results["data"]["fold"] == "subjects 1" and set(results["test_subjects"]) == {1}
    right = np.equal(results["test_labels"], results["test_predictions"])
    assert results["test_accuracy"] == pytest.approx(right.mean())


def test_all_folds_and_seeds_in_one_command(small, root):
    words = (
        f"action irevrnn --data-set utkinect --data {root} --out {small.out} --hidden-size 16 "
        "--num-layers 1 --epochs 4 --batch-size 8 --lr 0.01 --device cpu --threads 1 --seeds 2 "
        "--no-bones --no-motion --sampling whole"
    )
    assert main(words.split()) == 0
    summary = json.loads((small.out / "results.json").read_text())
    assert summary["finished"] and summary["num_runs"] == 2 * len(SUBJECTS)
    accuracies = [one["test_accuracy"] for one in summary["runs"]]
    spread = summary["test_accuracy"]
    assert spread["mean"] == pytest.approx(np.mean(accuracies))
    assert spread["deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    means = [np.mean([one["test_accuracy"] for one in summary["runs"] if one["seed"] == seed])
             for seed in (0, 1)]  # fmt: skip
    assert spread["deviation_of_seeds"] == pytest.approx(np.std(means, ddof=1))
    assert np.sum(summary["confusion_matrix"]) == 2 * 60
    assert set(summary["accuracy_of_subjects"]) == set(map(str, SUBJECTS))
    assert summary["data"]["protocol"] == "loso" and "fold" not in summary["data"]


def test_the_commits_of_all_runs_are_recorded(small, monkeypatch):
    config = dataclasses.replace(small, epochs=1, seeds=2, fold=0)
    commit = provenance()["git_commit"]
    assert train_all(config, progress=False)["git_commits"] == [commit]
    shutil.rmtree(config.out / "seed1")
    monkeypatch.setattr(
        "experiments.train.run.provenance", lambda: {**provenance(), "git_commit": "another"}
    )
    results = train_all(dataclasses.replace(config, resume=True), progress=False)
    assert results["git_commits"] == [commit, "another"]


def test_the_test_data_stays_unread_while_settings_are_chosen(small, monkeypatch):
    real, sizes = action_task.in_order, []

    def reading(data, *rest):
        sizes.append(set(data.recordings.subjects[data.sources]))
        return real(data, *rest)

    monkeypatch.setattr(action_task, "in_order", reading)
    results = train_all(dataclasses.replace(small, epochs=2, test=False), progress=False)
    assert "test_accuracy" not in results and "confusion_matrix" not in results
    assert 0 <= results["val_accuracy"]["mean"] <= 1
    assert len(sizes) == 2 * len(SUBJECTS) and all(len(people) == 1 for people in sizes)


def test_all_subjects_may_train_if_nothing_is_chosen(small):
    config = dataclasses.replace(small, val_subjects=0, fold=1)
    with pytest.raises(ConfigError, match="keep must be 'last' and test True"):
        train(config, progress=False)
    results = train(dataclasses.replace(config, keep="last", epochs=2), progress=False)
    assert results["data"]["train_size"] == 48 and results["val_accuracy"] is None
    assert results["best_epoch"] == 2


def test_windows_are_tested_one_by_one_and_recordings_as_a_whole(tmp_path):
    config = ActionConfig.of(
        data_set="watch", fold=0, hidden_size=4, num_layers=1, epochs=1, hop=400, keep="last",
        val_subjects=0, out=tmp_path, device="cpu", threads=1,
    )  # fmt: skip
    results = train(config, progress=False)
    recordings = load_watch()
    tested = np.isin(recordings.subjects, (1, 6))
    windows = 1 + (recordings.lengths[tested] - config.frames) // 400
    assert results["data"]["test_size"] == len(results["test_names"]) == windows.sum()
    assert results["test_recordings"] == tested.sum()
    assert 0 <= results["test_accuracy_of_recordings"] <= 1


def test_presets_hold_where_nothing_else_is_said():
    for name, preset in PRESETS.items():
        config = ActionConfig.of(data_set=name)
        assert config.identity() | preset == config.identity()
    assert ActionConfig.of(data_set="ntu60", frames=9).frames == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_set": "kth", "protocol": None}, "data_set must be one of .*; got 'kth'"),
        ({"fold": 5}, "fold must be from 0 to 4; got 5"),
        ({"protocol": "xset"}, "protocol must be one of loso, 5fold for utkinect; got 'xset'"),
        ({"batch_size": 500}, "batch_size must be at most the 36 training sequences; got 500"),
        ({"sampling": "window", "frames": 6}, "frames must be at most the 5 steps"),
        ({"val_subjects": 4}, "val_subjects must be below the 4 subjects .* got 4"),
    ],
)
def test_what_the_data_cannot_give_is_named(small, options, message):
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(small, **{"fold": 0} | options), progress=False)
