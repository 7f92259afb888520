"""Augmentation in space: one linear map for all frames of a recording, and its mirror image."""

from dataclasses import dataclass

import numpy as np

from experiments.action.views import mirrored
from experiments.datasets.recordings import Description


@dataclass(frozen=True)
class Augmentation:
    """Random changes that keep the action, by the options of the task; 0 turns each of them off."""

    rotation: float
    scale: float
    shear: float
    mirror: float

    def __call__(
        self, frames: np.ndarray, about: Description, generator: np.random.Generator
    ) -> np.ndarray:
        """Change frames, (n, bodies, joints, 3) or (n, channels), whose channels are 3-vectors."""
        if generator.random() < self.mirror:
            frames = mirrored(frames, about)
        shear = generator.uniform(-self.shear, self.shear, (3, 3)) * (1 - np.eye(3))
        scale = 1 + generator.uniform(-self.scale, self.scale)
        angles = np.radians(generator.uniform(-self.rotation, self.rotation, 3))
        change = (scale * rotation_matrix(angles) @ (np.eye(3) + shear)).astype(np.float32)
        return (frames.reshape(len(frames), -1, 3) @ change).reshape(frames.shape)


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Return the rotation about ``vector``, (3,), by its length in radians (Rodrigues), (3, 3)."""
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
