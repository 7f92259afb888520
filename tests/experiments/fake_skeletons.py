"""Small recordings of skeletons that a small network learns to tell apart in a second."""

import numpy as np

from experiments.datasets.recordings import Description, writing

ABOUT = Description(
    data_set="made up",
    kind="skeleton",
    class_names=("wave", "jump", "bow"),
    frame_rate=15.0,
    source="nowhere",
    joint_names=("hip", "neck", "shoulder_left", "hand_left", "shoulder_right", "hand_right"),
    bones=((0, 1), (1, 2), (2, 3), (1, 4), (4, 5)),
)
POSE = np.array([[0, 0, 2], [0, 0.5, 2], [-0.2, 0.5, 2], [-0.2, 0, 2], [0.2, 0.5, 2], [0.2, 0, 2]])
#: For each class: the joint that moves, and along which axis.
MOVES = ((5, 0), (0, 1), (1, 2))
SUBJECTS = (1, 2, 3, 4, 6)


def movement(label, length, generator):
    """(length, 1, joints, 3): a pose that is turned to some side, with one joint on its way."""
    frames = np.repeat(POSE[None], length, axis=0)
    joint, axis = MOVES[label]
    frames[:, joint, axis] += np.linspace(0, 1, length)
    angle = generator.uniform(-0.5, 0.5)
    turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    noise = generator.normal(0, 0.02, frames.shape)
    return (frames @ np.array(turn) + noise)[:, None].astype(np.float32)


def write_fake(folder, repetitions=4):
    """A converted data set of 5 subjects, 3 classes and lengths from 5 to 15."""
    generator = np.random.default_rng(0)
    with writing(folder, ABOUT, bodies=1) as writer:
        for subject in SUBJECTS:
            for label in range(3):
                for repetition in range(repetitions):
                    frames = movement(label, int(generator.integers(5, 16)), generator)
                    name = f"s{subject}_{label}_{repetition}"
                    writer.add(frames, label, subject, name, repetition=repetition)
