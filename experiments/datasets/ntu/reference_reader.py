"""The format of NTU RGB+D's ``.skeleton`` files, and the reader that defines it.

A file is text, one item per line, words separated by blanks (lines may end in blanks and CR LF):

    number of frames
    for each frame: number of bodies
        for each body: tracking id and 9 further fields
            number of joints, which is 25
            for each joint: x y z depthX depthY colorX colorY orientW orientX orientY orientZ state

x, y and z are metres in the camera's frame, finite and at most 1000 (the sensor sees about 8: a
larger number has lost its decimal point); state is 0 (not tracked), 1 (inferred) or 2 (tracked).
The other fields are not used and may be NaN or infinite, as some published files have such pixels
for joints outside the image.

A file cut short at any byte is noticed: a body ends in a state of one digit, and a frame without
bodies in a 0, so that no cut leaves a shorter number there. Only the end of the last line may be
missing.

This reader goes line by line and reports what is wrong and where. :mod:`.reader` is the fast one,
which falls back on this one for every file that is not plain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.datasets.recordings import SkeletonError

JOINTS = 25
JOINT_FIELDS = (
    "x", "y", "z", "depth_x", "depth_y", "color_x", "color_y",
    "orientation_w", "orientation_x", "orientation_y", "orientation_z", "state",
)  # fmt: skip
BODY_FIELDS = (
    "clipped_edges", "hand_left_confidence", "hand_left_state", "hand_right_confidence",
    "hand_right_state", "restricted", "lean_x", "lean_y", "tracking_state",
)  # fmt: skip
#: The fields of a body, the number of joints, the joints.
BODY_LINES = 2 + JOINTS
#: The largest coordinate, in metres.
FARTHEST = 1000.0


@dataclass(frozen=True, eq=False)
class Skeletons:
    """The content of a file, with M >= 1 bodies in all frames, in the order of the file.

    Attributes:
        frames: the number of frames, including those without a body; at least 1.
        frame: (M,) int64, the frame of each body, from 0.
        body: (M,) uint64, the tracking id, which is the same in all frames of a body.
        fields: (M, 9) float32, see ``BODY_FIELDS``.
        joints: (M, 25, 12) float32, see ``JOINT_FIELDS``.
    """

    frames: int
    frame: np.ndarray
    body: np.ndarray
    fields: np.ndarray
    joints: np.ndarray


def line_of_body(frame: int, bodies_before: int) -> int:
    """Return the line, from 1, with the fields of the body in ``frame`` after others."""
    return 1 + (frame + 1) + BODY_LINES * bodies_before + 1


def parse(data: bytes) -> Skeletons:
    """Read the content of a file, line by line.

    Raises:
        SkeletonError: if it does not have the format; the first wrong line is named.
    """
    lines = _Lines(data)
    frames = lines.whole("the number of frames")
    if frames == 0:
        raise SkeletonError("there are 0 frames; expected at least 1", lines.number)
    bodies = []
    for frame in range(frames):
        for _ in range(lines.whole(f"the number of bodies in frame {frame + 1} of {frames}")):
            bodies.append((frame, *_body(lines), [_joint(lines, j) for j in range(JOINTS)]))
    lines.end()
    if not bodies:
        raise SkeletonError(f"there is no body in any of the {frames} frames")
    frame_of, ids, fields, joints = zip(*bodies, strict=True)
    with np.errstate(over="ignore"):  # unused fields may be infinite
        return Skeletons(
            frames,
            np.array(frame_of, np.int64),
            np.array(ids, np.uint64),
            np.array(fields, np.float64).astype(np.float32),
            np.array(joints, np.float64).astype(np.float32),
        )


class _Lines:
    """Yields the words of one line after another."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.split(b"\n")
        self.number = 0

    def words(self, count: int, expected: str) -> list[bytes]:
        at_last = self.number == len(self._lines) - 1
        if self.number == len(self._lines) or (at_last and not self._lines[-1].strip()):
            raise SkeletonError(f"the file ends; expected {expected}", self.number + 1)
        words = self._lines[self.number].split()
        self.number += 1
        if len(words) != count:
            fields = f"{count} field{'s'[: count > 1]}; got {len(words)}"
            problem = f"expected {expected}, {fields}: {_shown(b' '.join(words))}"
            raise SkeletonError(problem, self.number)
        return words

    def whole(self, expected: str) -> int:
        [word] = self.words(1, expected)
        return self.to_whole(word, expected)

    def to_whole(self, word: bytes, expected: str) -> int:
        if not word.isdigit() or len(word) > 20 or int(word) >= 2**64:
            problem = f"expected {expected}, a whole number; got {_shown(word)}"
            raise SkeletonError(problem, self.number)
        return int(word)

    def floats(self, words: list[bytes], expected: str) -> list[float]:
        try:
            numbers = [float(word) for word in words]
        except ValueError as error:
            raise SkeletonError(f"expected {expected}: {error}", self.number) from None
        if any(b"_" in word for word in words):  # a notation of Python alone
            raise SkeletonError(f"expected {expected}; got {_shown(b' '.join(words))}", self.number)
        return numbers

    def end(self) -> None:
        for number, line in enumerate(self._lines[self.number :], self.number + 1):
            if line.strip():
                problem = f"expected the end of the file after the last frame; got {_shown(line)}"
                raise SkeletonError(problem, number)


def _body(lines: _Lines) -> tuple[int, list[float]]:
    """Return the tracking id and the further fields of the next body."""
    expected = "the tracking id of a body and its 9 further fields"
    body_id, *rest = lines.words(1 + len(BODY_FIELDS), expected)
    found = lines.to_whole(body_id, "a tracking id"), lines.floats(rest, expected)
    joints = lines.whole("the number of joints")
    if joints != JOINTS:
        raise SkeletonError(f"a body has {joints} joints; expected {JOINTS}", lines.number)
    return found


def _joint(lines: _Lines, joint: int) -> list[float]:
    expected = f"joint {joint + 1} of {JOINTS}"
    numbers = lines.floats(lines.words(len(JOINT_FIELDS), expected), expected)
    for name, number in zip("xyz", numbers, strict=False):
        if not abs(number) <= FARTHEST:
            problem = f"{name} of {expected} is {number:g} m; expected at most {FARTHEST:g}"
            raise SkeletonError(f"{problem}, and finite", lines.number)
    if numbers[-1] not in (0, 1, 2):
        problem = f"the tracking state of {expected} is {numbers[-1]:g}; expected 0, 1 or 2"
        raise SkeletonError(problem, lines.number)
    return numbers


def _shown(text: bytes, most: int = 40) -> str:
    """Return a piece of a file, fit for a message of one line."""
    return ascii(text[:most].decode("latin-1")) + "..." * (len(text) > most)
