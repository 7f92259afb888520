"""Names, the official list of missing skeletons and the published sizes of the splits."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.datasets import DataError
from experiments.datasets.ntu.samples import (
    CLASS_NAMES,
    SPLITS,
    SUBJECTS_60,
    SUBJECTS_120,
    Sample,
    describe,
    is_in_60,
    missing,
    samples_of,
    sizes_of,
    split,
)
from experiments.datasets.ntu.samples import parse_name as parse
from experiments.datasets.recordings import join

#: Setup and subject go together in 158 (60) and 318 (120) ways; each pair does its 60 actions twice
#: before three cameras. How many pairs train follows from the published sizes of whole data sets.
PAIRS = {60: 158, 120: 318}
#: Recordings of the whole data sets, with those on the list: to train on and to test.
WHOLE = {
    (60, "xsub"): (40_320, 16_560),
    (60, "xview"): (37_920, 18_960),
    (120, "xsub"): (63_360, 51_120),
    (120, "xset"): (54_720, 59_760),
}


def pairs_of(actions):
    """As many pairs of setup and subject as there are, among them those of the official list.

    Who was in front of which camera is not published as a table, so the others are made up, such
    that as many pairs train by subject, and by setup, as in the whole data set.
    """
    subjects = SUBJECTS_60 if actions == 60 else SUBJECTS_120
    people = range(1, 41) if actions == 60 else range(1, 107)
    setups = range(1, 18) if actions == 60 else range(1, 33)
    chosen = {(s.setup, s.subject) for s in missing() if actions == 120 or is_in_60(s)}
    by_subject = {True: WHOLE[actions, "xsub"][0] // 360, False: WHOLE[actions, "xsub"][1] // 360}
    by_setup = {True: 152, False: 166} if actions == 120 else {True: 158, False: 158}
    for setup, subject in product(setups, people):
        trains, even = subject in subjects, setup % 2 == 0
        have_trains = sum((p in subjects) == trains for _, p in chosen)
        have_even = sum((s % 2 == 0) == even for s, _ in chosen)
        if have_trains < by_subject[trains] and have_even < by_setup[even]:
            chosen.add((setup, subject))
    assert len(chosen) == PAIRS[actions]
    return sorted(chosen)


@pytest.fixture(scope="module", params=[60, 120])
def official(request):
    """All names of a data set: its number of actions, and the samples."""
    actions = request.param
    samples = [
        Sample(setup, camera, subject, repetition, action)
        for setup, subject in pairs_of(actions)
        for camera, repetition, action in product(
            (1, 2, 3), (1, 2), range(1, 61) if setup <= 17 else range(61, 121)
        )
    ]
    assert len(samples) == {60: 56_880, 120: 114_480}[actions]
    return actions, samples


def test_a_name_is_taken_apart():
    assert parse("S001C002P003R002A013") == (1, 2, 3, 2, 13)
    assert str(parse("S032C003P106R001A120")) == "S032C003P106R001A120"


@pytest.mark.parametrize(
    "name",
    ["", "S001C002P003R002A13", "s001C002P003R002A013", "S001C002P003R002A013 ", "S001C002P003R002",
     "S001C002P003R002A013\n", "S001C002P003R002A0130", "xS001C002P003R002A013",
     "S١٢٣C002P003R002A013"],
)  # fmt: skip
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="SsssCcccPpppRrrrAaaa"):
        parse(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("S000C001P001R001A001", "setup 0; expected 1 to 32"),
        ("S033C001P001R001A001", "setup 33"),
        ("S001C004P001R001A001", "camera 4; expected 1 to 3"),
        ("S001C001P107R001A001", "subject 107; expected 1 to 106"),
        ("S001C001P001R003A001", "repetition 3; expected 1 to 2"),
        ("S001C001P001R001A121", "action 121; expected 1 to 120"),
    ],
)
def test_numbers_that_there_are_not(name, reason):
    with pytest.raises(ValueError, match=reason):
        parse(name)


@given(st.text())
def test_any_text_is_a_name_or_is_not(text):
    try:
        assert str(parse(text)) == text
    except ValueError as error:
        assert str(error).isprintable()


def test_the_official_list():
    assert len(missing()) == 535
    assert sum(map(is_in_60, missing())) == 302
    assert parse("S001C002P005R002A008") in missing()
    assert all((sample.setup <= 17) == (sample.action <= 60) for sample in missing())


def test_half_of_the_subjects_train():
    assert len(set(SUBJECTS_60)) == 20
    assert len(set(SUBJECTS_120)) == 53


def description(actions):
    return describe([Sample(1, 1, 1, 1, actions)])


def test_every_action_has_a_name():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 120
    assert len(description(60).class_names) == 60


def test_the_bones_are_a_tree():
    about = description(120)
    assert len(about.bones) == len(about.joint_names) - 1
    assert about.joint_names[about.root] == "spine_base"
    assert len({child for _, child in about.bones}) == len(about.bones)


def test_splits_have_the_published_sizes(official):
    actions, samples = official
    kept = [sample for sample in samples if sample not in missing()]
    for name, protocol in SPLITS[actions].items():
        for some, expected in ((samples, WHOLE[actions, name]), (kept, protocol.sizes)):
            assert sizes_of(some, protocol) == expected
    assert describe(kept) == description(actions)


def test_other_names_in_the_same_number_are_noticed(official):
    actions, samples = official
    kept = [sample for sample in samples if sample not in missing()]
    i = next(i for i, sample in enumerate(kept) if sample.subject == 1)
    kept[i] = kept[i]._replace(subject=3)
    with pytest.raises(DataError, match="xsub of NTU RGB.D .* official names"):
        describe(kept)
    describe(kept[:-1])  # not the whole: nothing to compare with


def recordings_of(samples, actions):
    frames = [np.zeros((1, 2, 25, 3), np.float32)] * len(samples)
    names = "setup", "camera", "repetition"
    return join(
        description(actions),
        frames,
        [s.action - 1 for s in samples],
        [s.subject for s in samples],
        [str(s) for s in samples],
        {name: [getattr(s, name) for s in samples] for name in names},
    )


SOME = [
    Sample(1, 1, 1, 1, 1), Sample(2, 2, 3, 1, 2), Sample(2, 3, 45, 1, 60), Sample(17, 1, 38, 2, 7),
]  # fmt: skip


def test_split_of_converted_recordings():
    recordings = recordings_of(SOME, 60)
    assert samples_of(recordings) == SOME
    assert split(recordings, "xsub").tolist() == [True, False, False, True]
    assert split(recordings, "xview").tolist() == [False, True, True, False]
    recordings = recordings_of(SOME, 120)
    assert split(recordings, "xsub").tolist() == [True, False, True, True]
    assert split(recordings, "xset").tolist() == [False, True, True, False]


def test_a_protocol_that_there_is_not():
    with pytest.raises(DataError, match="one of xsub, xview for NTU RGB.D 60; got 'xset'"):
        split(recordings_of(SOME, 60), "xset")
