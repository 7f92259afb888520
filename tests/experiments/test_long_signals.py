"""The notebook on whole recordings: made-up signals, a part of the data, memory, figures."""

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

from experiments.bench.classifiers import measure_classifier, saved_by
from experiments.bench.measure import in_fresh_process
from experiments.datasets.recordings import Description, join
from experiments.models import BlockClassifier
from experiments.signals import synthetic
from experiments.signals.subset import SubsetConfig, balanced

# --- made-up signals ----------------------------------------------------------------------------


def test_pulses_are_the_same_each_time_and_of_all_classes():
    first, again, other = (synthetic.make_recordings(5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.frames, again.frames)
    assert first.labels.tolist() == [0, 1, 2, 3] * 5
    assert first.frames.shape[1] == 1 and not np.array_equal(first.lengths, other.lengths)
    assert first.lengths.min() >= 400 and first.lengths.max() <= 1200


def test_irregular_beats_are_irregular():
    recordings = synthetic.make_recordings(20)

    def spread(label):
        those = (recordings[index][:, 0] for index in np.flatnonzero(recordings.labels == label))
        intervals = [np.diff(find_peaks(one, height=0.5, distance=10)[0]) for one in those]
        return np.median([one.std() / one.mean() for one in intervals])

    regular, irregular = spread(synthetic.REGULAR), spread(synthetic.IRREGULAR)
    assert regular < 0.05 < 0.15 < irregular


# --- a part of the data -------------------------------------------------------------------------


def some_recordings(counts):
    """Recordings of these numbers for each class, each with its own number as its only value."""
    labels = np.repeat(np.arange(len(counts)), counts)
    about = Description("made up", "signal", [*"abcd"][: len(counts)], 1.0, "here", ["x"])
    frames = [np.full((3 + number % 5, 1), number) for number in range(len(labels))]
    names = [f"r{number}" for number in range(len(labels))]
    return join(
        about, frames, labels, range(len(labels)), names, {"age": 10 + np.arange(sum(counts))}
    )


def test_each_class_has_as_many_recordings_or_all_of_its_own():
    whole = some_recordings([50, 8, 3])
    part = balanced(whole, 8)
    assert np.bincount(part.labels).tolist() == [8, 8, 3]
    assert balanced(whole, 8).names.tolist() == part.names.tolist()
    for index, name in enumerate(part.names):
        number = int(name[1:])
        np.testing.assert_array_equal(part[index], whole[number])
        assert part.labels[index] == whole.labels[number]
        assert part.subjects[index] == number and part.columns["age"][index] == 10 + number


def test_results_do_not_call_made_up_signals_an_ecg():
    made_up, real = (SubsetConfig.of(synthetic=which, per_class=4) for which in (True, False))
    assert made_up.identity()["data_set"] == "synthetic"
    assert real.identity()["data_set"] == "cinc2017"
    assert len(made_up.load()) == 16


# --- memory -------------------------------------------------------------------------------------


def test_a_step_is_measured_at_every_shape():
    model = BlockClassifier(1, 3, 8, 2, width=8, memory="recompute")
    short, long = in_fresh_process(measure_classifier, model, [(2, 100, 1), (2, 1000, 1)])
    assert (short["batch"], short["steps"], long["steps"]) == (2, 100, 1000)
    assert 9 < long["saved_bytes"] / short["saved_bytes"] < 11
    assert all(row["peak_bytes"] >= 0 and row["seconds"] > 0 for row in (short, long))


def test_padding_is_not_saved():
    model = BlockClassifier(1, 3, 32, 2, width=32, memory="recompute")
    x, lengths = torch.randn(2, 1000, 1), torch.tensor([1000, 200])
    share = saved_by(model.rnn, x, lengths) / saved_by(model.rnn, x)
    assert share == pytest.approx(0.6, abs=0.02)
