"""What is known of NTU RGB+D without reading it: names, actions, joints, what is left out."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from experiments.datasets.recordings import Description

SUFFIX = ".skeleton"
#: Setups and actions of NTU RGB+D 60 are the first of NTU RGB+D 120.
SETUPS_60, ACTIONS_60 = 17, 60
_LARGEST = {"setup": 32, "camera": 3, "subject": 106, "repetition": 2, "action": 120}
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)


class Sample(NamedTuple):
    """What a name tells; all numbers are from 1."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int

    def __str__(self) -> str:
        return "".join(f"{letter}{n:03d}" for letter, n in zip("SCPRA", self, strict=True))


def parse_name(name: str) -> Sample:
    """Take a name apart, such as S001C002P003R002A013.

    Raises:
        ValueError: it is none of NTU RGB+D; the message says why.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("the name is not SsssCcccPpppRrrrAaaa, with three digits each")
    sample = Sample(*map(int, match.groups()))
    for (what, largest), number in zip(_LARGEST.items(), sample, strict=True):
        if not 1 <= number <= largest:
            raise ValueError(f"the name has {what} {number}; expected 1 to {largest}")
    return sample


@cache
def missing() -> frozenset[Sample]:
    """The 535 recordings whose skeletons are missing or incomplete, as the authors list them.

    302 of them are in NTU RGB+D 60.
    """
    text = Path(__file__).with_name("missing.txt").read_text(encoding="ascii")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return frozenset(
        parse_name(f"{begin}A{int(action):03d}") for begin, *actions in lines for action in actions
    )


def is_in_60(sample: Sample) -> bool:
    """Whether a recording belongs to NTU RGB+D 60 as well as to NTU RGB+D 120."""
    return sample.setup <= SETUPS_60 and sample.action <= ACTIONS_60


def description(actions: int) -> Description:
    """What the numbers of NTU RGB+D 60 or 120 mean."""
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
