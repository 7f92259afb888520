"""Names, the official list of missing skeletons and the published sizes of the splits."""

import numpy as np
import pytest

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

#: Recordings of the whole data sets, with those on the list: to train on and to test.
WHOLE = {
    (60, "xsub"): (40_320, 16_560),
    (60, "xview"): (37_920, 18_960),
    (120, "xsub"): (63_360, 51_120),
    (120, "xset"): (54_720, 59_760),
}


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


@pytest.mark.parametrize(("actions", "name"), WHOLE)
def test_splits_have_the_published_sizes(actions, name):
    """The published sizes are those of the whole data sets, less the official list."""
    listed = [sample for sample in missing() if actions == 120 or is_in_60(sample)]
    protocol = SPLITS[actions][name]
    left = np.subtract(WHOLE[actions, name], sizes_of(listed, protocol))
    assert tuple(left) == protocol.sizes


def test_other_names_in_the_same_number_are_noticed(monkeypatch):
    xsub = SPLITS[60]["xsub"]
    monkeypatch.setitem(SPLITS[60], "xsub", xsub._replace(sizes=(1, 1)))
    some = [Sample(1, 1, subject, 1, 1) for subject in (1, 3)]
    assert describe(some) == description(60)
    with pytest.raises(DataError, match="xsub of NTU RGB.D .* official names"):
        describe(some[:1] * 2)
    describe(some[:1])  # not the whole: nothing to compare with


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
