"""Position and orientation of a body, its mirror image, bones and motion as channels.

Skeletons come in the camera's coordinates: x to one side, y up, z away from it.
"""

from dataclasses import dataclass

import numpy as np

from experiments.datasets.recordings import Description

CENTRES = ("start", "frames")
#: Metres. The orientation of shoulders that look closer than this from above is noise.
_NARROW = 1e-3


@dataclass(frozen=True)
class View:
    """The channels to make of the frames of a recording.

    Attributes:
        centre: ``"start"`` moves the root of the first body's first frame to the origin,
            ``"frames"`` that of each frame (which loses paths).
        bones: add the vectors from parent to child joint.
        motion: add the differences from the previous frame, for all channels.
    """

    about: Description
    centre: str
    bones: bool
    motion: bool

    def place(self, frames: np.ndarray, start: np.ndarray, left: bool = False) -> np.ndarray:
        """Centre and turn frames, (n, bodies, joints, 3) or (n, channels).

        Skeletons turn about the vertical, until the first body's shoulders lie along x in the first
        frame, and signals of a left arm become those of a right one. ``start`` is the
        :func:`starting_pose` of the recording; ``left`` says whether signals are of the left arm.
        """
        if self.about.kind == "signal":
            return mirrored(frames, self.about) if left else frames
        present = (frames != 0).any(axis=(2, 3), keepdims=True)
        root = self.about.root
        origin = start[root] if self.centre == "start" else frames[:, :1, root : root + 1]
        return (frames - origin) @ self._turning(start) * present

    def _turning(self, start: np.ndarray) -> np.ndarray:
        names = self.about.joint_names
        across = start[names.index("shoulder_right")] - start[names.index("shoulder_left")]
        width = np.hypot(across[0], across[2])
        if width < _NARROW:
            return np.eye(3, dtype=np.float32)
        cosine, sine = across[0] / width, across[2] / width
        return np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)

    def channels(self, frames: np.ndarray) -> np.ndarray:
        """Return frames, (n, ...), as rows of numbers, (n, features)."""
        parts = [frames.reshape(len(frames), -1)]
        if self.bones:
            parent, child = np.array(self.about.bones).T
            parts.append((frames[:, :, child] - frames[:, :, parent]).reshape(len(frames), -1))
        if self.motion:
            parts += [np.diff(part, axis=0, prepend=part[:1]) for part in parts]
        return np.concatenate(parts, axis=1)


def starting_pose(frames: np.ndarray) -> np.ndarray:
    """Return the first body in the first frame that has it, (joints, 3); empty for signals."""
    if frames.ndim < 4:
        return frames[:0]
    present = frames[:, 0].any(axis=(1, 2))
    return frames[present.argmax(), 0]


def mirrored(frames: np.ndarray, about: Description) -> np.ndarray:
    """Return the same movement by the other side of the body: x is reversed, sides are swapped.

    An angular velocity is a pseudovector: its mirror image keeps x and reverses the other two.
    """
    if about.kind == "skeleton":
        swapped = [about.joint_names.index(_other_side(name)) for name in about.joint_names]
        return frames[:, :, swapped] * np.array([-1, 1, 1], frames.dtype)
    same = [name.startswith("rotation") == name.endswith("_x") for name in about.joint_names]
    return frames * np.where(same, 1, -1).astype(frames.dtype)


def _other_side(name: str) -> str:
    for side, other in (("_left", "_right"), ("_right", "_left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name
