"""The format of NTU RGB+D's ``.skeleton`` files, and their reader.

A file is text, one item per line, words separated by blanks (lines may end in blanks and CR LF):

    number of frames
    for each frame: number of bodies
        for each body: tracking id, clipped edges, hand left confidence and state, hand right
                confidence and state, restricted, lean x and y, tracking state
            number of joints, which is 25
            for each joint: x y z depthX depthY colorX colorY orientW orientX orientY orientZ state

x, y and z are metres in the camera's frame, finite and at most 1000 (the sensor sees about 8: a
larger number has lost its decimal point); state is 0 (not tracked), 1 (inferred) or 2 (tracked).
The other fields are not used and may be NaN or infinite, as pixels outside the image are.

A file cut short at any byte is noticed: a body ends in a state of one digit, and a frame without
bodies in a 0, so that no cut leaves a shorter number there. Only the end of the last line may be
missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.datasets.recordings import SkeletonError

JOINTS = 25
#: Numbers in the line of a joint, and in that of a body after its tracking id.
JOINT_FIELDS, BODY_FIELDS = 12, 9
#: The fields of a body, the number of joints, the joints.
BODY_LINES = 2 + JOINTS
#: The largest coordinate, in metres.
FARTHEST = 1000.0
#: Bytes of the largest file; the largest published one has some 10 MB.
LARGEST = 1 << 30


@dataclass(frozen=True, eq=False)
class Skeletons:
    """The content of a file, with M >= 1 bodies in all frames, in the order of the file.

    Attributes:
        frame: (M,) int64, the frame of each body, from 0.
        body: (M,) uint64, the tracking id, which is the same in all frames of a body.
        joints: (M, 25, 3) float32, x, y and z in metres.
    """

    frame: np.ndarray
    body: np.ndarray
    joints: np.ndarray


def read_skeleton(path: Path) -> Skeletons:
    """Read a file, or raise an OSError, or a SkeletonError that names the first wrong line."""
    size = path.stat().st_size
    if size > LARGEST:
        raise SkeletonError(f"the file has {size} bytes; expected at most {LARGEST}")
    return parse(path.read_bytes())


def parse(data: bytes) -> Skeletons:
    """Read the content of a file."""
    lines = _Lines(data)
    frames = lines.whole("the number of frames")
    if frames == 0:
        raise lines.error("the number of frames, at least 1", 0)
    bodies = []
    for frame in range(frames):
        for _ in range(lines.whole(f"the number of bodies in frame {frame + 1} of {frames}")):
            bodies.append((frame, _body(lines), [_joint(lines, j) for j in range(JOINTS)]))
    lines.end()
    if not bodies:
        raise SkeletonError(f"there is no body in any of the {frames} frames")
    frame_of, ids, joints = zip(*bodies, strict=True)
    return Skeletons(
        np.array(frame_of, np.int64), np.array(ids, np.uint64), np.array(joints, np.float32)
    )


class _Lines:
    """Yields the words of one line after another."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.rstrip().split(b"\n")
        self.number = 0

    def error(self, expected: str, got: object) -> SkeletonError:
        return SkeletonError(f"expected {expected}; got {got}", self.number)

    def words(self, count: int, expected: str) -> list[bytes]:
        line = self._lines[self.number] if self.number < len(self._lines) else b""
        self.number += 1
        words = line.split()
        if not words and self.number >= len(self._lines):
            raise self.error(expected, "the end of the file")
        if len(words) != count:
            raise self.error(f"{expected}, {count} fields", f"{len(words)}: {_shown(words)}")
        return words

    def whole(self, expected: str) -> int:
        return self.to_whole(self.words(1, expected), expected)

    def to_whole(self, words: list[bytes], expected: str) -> int:
        [word] = words
        if not word.isdigit() or len(word) > 20 or int(word) >= 2**64:
            raise self.error(f"{expected}, a whole number", _shown(words))
        return int(word)

    def to_floats(self, words: list[bytes], expected: str) -> list[float]:
        try:
            return [float(word.replace(b"_", b"?")) for word in words]  # float() reads 1_000
        except ValueError:
            raise self.error(f"{expected}, {len(words)} numbers", _shown(words)) from None

    def end(self) -> None:
        if self.number < len(self._lines):
            line = _shown([self._lines[self.number]])
            self.number += 1
            raise self.error("the end of the file after the last frame", line)


def _body(lines: _Lines) -> int:
    """Return the tracking id of the next body, whose further fields are numbers, too."""
    expected = "the tracking id of a body and its 9 further fields"
    words = lines.words(1 + BODY_FIELDS, expected)
    tracking_id = lines.to_whole(words[:1], "a tracking id")
    lines.to_floats(words[1:], expected)
    joints = lines.whole("the number of joints")
    if joints != JOINTS:
        raise lines.error(f"{JOINTS} joints", joints)
    return tracking_id


def _joint(lines: _Lines, joint: int) -> list[float]:
    expected = f"joint {joint + 1} of {JOINTS}"
    numbers = lines.to_floats(lines.words(JOINT_FIELDS, expected), expected)
    for name, number in zip("xyz", numbers, strict=False):
        if not abs(number) <= FARTHEST:
            limit = f"finite and at most {FARTHEST:g} m"
            raise lines.error(f"{name} of {expected}, {limit}", f"{number:g}")
    if numbers[-1] not in (0, 1, 2):
        raise lines.error(f"the tracking state of {expected}, 0, 1 or 2", f"{numbers[-1]:g}")
    return numbers[:3]


def _shown(words: list[bytes], most: int = 40) -> str:
    """Return a piece of a file, fit for a message of one line."""
    text = b" ".join(words)
    return ascii(text[:most].decode("latin-1")) + "..." * (len(text) > most)
