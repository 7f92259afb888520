"""The recordings of NTU RGB+D as their authors published them: names, labels and splits.

The published sizes of the splits leave out the recordings on the authors' list of missing
skeletons. For NTU RGB+D 120, sizes of 50,922 (cross-subject, tested) and 54,471 (cross-setup,
trained) are quoted too: they come from an earlier list, without three of today's 535 recordings.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.recordings import Description, Recordings

SUFFIX = ".skeleton"
#: Setups and actions of NTU RGB+D 60 are the first of NTU RGB+D 120.
SETUPS_60, ACTIONS_60 = 17, 60
_LARGEST = {"setup": 32, "camera": 3, "subject": 106, "repetition": 2, "action": 120}
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)


class Sample(NamedTuple):
    """The numbers in the name of a recording, all from 1."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int

    def __str__(self) -> str:
        return "".join(f"{letter}{n:03d}" for letter, n in zip("SCPRA", self, strict=True))


def parse_name(name: str) -> Sample:
    """Parse a name such as S001C002P003R002A013, or raise a ValueError that says what is wrong."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("the name is not SsssCcccPpppRrrrAaaa, with three digits each")
    sample = Sample(*map(int, match.groups()))
    for (field, largest), number in zip(_LARGEST.items(), sample, strict=True):
        if not 1 <= number <= largest:
            raise ValueError(f"the name has {field} {number}; expected 1 to {largest}")
    return sample


@cache
def missing() -> frozenset[Sample]:
    """Return the 535 recordings whose skeletons are missing, 302 of them in NTU RGB+D 60."""
    text = Path(__file__).with_name("missing.txt").read_text(encoding="ascii")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return frozenset(
        parse_name(f"{begin}A{int(action):03d}") for begin, *actions in lines for action in actions
    )


def is_in_60(sample: Sample) -> bool:
    """Return whether a recording is part of NTU RGB+D 60, too."""
    return sample.setup <= SETUPS_60 and sample.action <= ACTIONS_60


SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
SUBJECTS_120 = (
    *SUBJECTS_60,
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89,
    91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
CAMERAS_60 = (2, 3)


class OfficialSplit(NamedTuple):
    """Whether a recording is trained on, and the published sizes: to train on and to test."""

    trains: Callable[[Sample], bool]
    sizes: tuple[int, int]


#: By the number of actions and the name of the protocol.
SPLITS = {
    60: {
        "xsub": OfficialSplit(lambda sample: sample.subject in SUBJECTS_60, (40_091, 16_487)),
        "xview": OfficialSplit(lambda sample: sample.camera in CAMERAS_60, (37_646, 18_932)),
    },
    120: {
        "xsub": OfficialSplit(lambda sample: sample.subject in SUBJECTS_120, (63_026, 50_919)),
        "xset": OfficialSplit(lambda sample: sample.setup % 2 == 0, (54_468, 59_477)),
    },
}


def split(recordings: Recordings, protocol: str) -> np.ndarray:
    """Return which recordings a protocol trains on, (N,) bool; it tests the others."""
    about = recordings.about
    protocols = SPLITS.get(len(about.class_names), {})
    if not about.data_set.startswith("NTU RGB+D") or protocol not in protocols:
        known = ", ".join(protocols) or "those of NTU RGB+D"
        raise DataError(f"protocol must be one of {known} for {about.data_set}; got {protocol!r}")
    return np.array([*map(protocols[protocol].trains, samples_of(recordings))], bool)


def samples_of(recordings: Recordings) -> list[Sample]:
    """Return the numbers in the names of converted recordings."""
    return [parse_name(name) for name in recordings.names.tolist()]


def sizes_of(samples: Sequence[Sample], protocol: OfficialSplit) -> tuple[int, int]:
    """Return the numbers of samples that a protocol trains on and tests."""
    train = sum(map(protocol.trains, samples))
    return train, len(samples) - train


def summary(recordings: Recordings) -> str:
    """Return a line for each protocol: its sizes, and the published ones if they differ."""
    lines = []
    for name, protocol in SPLITS[len(recordings.about.class_names)].items():
        train, test = sizes = sizes_of(samples_of(recordings), protocol)
        note = "as published" if sizes == protocol.sizes else f"published: {_and(protocol.sizes)}"
        lines.append(f"{name}: {train:,} train, {test:,} test ({note})")
    return "\n".join(lines)


def _and(sizes: tuple[int, int]) -> str:
    return f"{sizes[0]:,} and {sizes[1]:,}"


def describe(samples: Sequence[Sample]) -> Description:
    """Describe NTU RGB+D 60, if all samples belong to that, or 120; check the sizes of splits."""
    actions = 60 if all(map(is_in_60, samples)) else 120
    for name, protocol in SPLITS[actions].items():
        sizes = sizes_of(samples, protocol)
        if len(samples) == sum(protocol.sizes) and sizes != protocol.sizes:
            raise DataError(
                f"{name} of NTU RGB+D {actions} must split {len(samples):,} recordings into "
                f"{_and(protocol.sizes)}; got {_and(sizes)}. Are these the official names?"
            )
    return Description(
        data_set=f"NTU RGB+D {actions}",
        kind="skeleton",
        class_names=CLASS_NAMES[:actions],
        frame_rate=30.0,
        source=f"*{SUFFIX} of the ROSE Lab, Nanyang Technological University",
        joint_names=JOINT_NAMES,
        bones=BONES,
    )


JOINT_NAMES = (
    "spine_base", "spine_mid", "neck", "head",
    "shoulder_left", "elbow_left", "wrist_left", "hand_left",
    "shoulder_right", "elbow_right", "wrist_right", "hand_right",
    "hip_left", "knee_left", "ankle_left", "foot_left",
    "hip_right", "knee_right", "ankle_right", "foot_right",
    "spine_shoulder", "hand_tip_left", "thumb_left", "hand_tip_right", "thumb_right",
)  # fmt: skip
BONES = (
    (0, 1), (1, 20), (20, 2), (2, 3),
    (20, 4), (4, 5), (5, 6), (6, 7), (7, 21), (6, 22),
    (20, 8), (8, 9), (9, 10), (10, 11), (11, 23), (10, 24),
    (0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19),
)  # fmt: skip
CLASS_NAMES = (
    "drink water", "eat meal", "brush teeth", "brush hair", "drop", "pick up", "throw", "sit down",
    "stand up", "clapping", "reading", "writing", "tear up paper", "put on jacket",
    "take off jacket", "put on a shoe", "take off a shoe", "put on glasses", "take off glasses",
    "put on a hat", "take off a hat", "cheer up", "hand waving", "kicking something",
    "reach into pocket", "hopping", "jump up", "phone call", "play with phone",
    "type on a keyboard", "point to something", "taking a selfie", "check time", "rub two hands",
    "nod head", "shake head", "wipe face", "salute", "put palms together", "cross hands in front",
    "sneeze or cough", "staggering", "falling down", "headache", "chest pain", "back pain",
    "neck pain", "nausea", "fan self", "punch or slap", "kicking", "pushing", "pat on back",
    "point finger", "hugging", "giving object", "touch pocket", "shaking hands",
    "walking towards", "walking apart",
    "put on headphone", "take off headphone", "shoot at basket", "bounce ball",
    "tennis bat swing", "juggle table tennis ball", "hush", "flick hair", "thumb up", "thumb down",
    "make OK sign", "make victory sign", "staple book", "counting money", "cutting nails",
    "cutting paper", "snap fingers", "open bottle", "sniff", "squat down", "toss a coin",
    "fold paper", "ball up paper", "play magic cube", "apply cream on face",
    "apply cream on hand", "put on bag", "take off bag", "put object into bag",
    "take object out of bag", "open a box", "move heavy objects", "shake fist", "throw up cap",
    "capitulate", "cross arms", "arm circles", "arm swings", "run on the spot", "butt kicks",
    "cross toe touch", "side kick", "yawn", "stretch oneself", "blow nose", "hit with object",
    "wield knife", "knock over", "grab stuff", "shoot with gun", "step on foot", "high-five",
    "cheers and drink", "carry object", "take a photo", "follow", "whisper", "exchange things",
    "support somebody", "rock-paper-scissors",
)  # fmt: skip
