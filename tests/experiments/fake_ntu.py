"""Small made-up files in the format of NTU RGB+D."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

JOINTS = 25
BODY = 72057594037932358
#: Heights of the joints of somebody upright, in metres, and a little to both sides.
POSE = np.stack(
    [np.tile([-0.2, 0, 0.2, 0.1, -0.1], 5), np.linspace(-0.9, 0.8, JOINTS), np.full(JOINTS, 3.0)],
    axis=1,
)


def seven_digits(number: float) -> str:
    """As the recorder wrote numbers."""
    return f"{number:.7G}"


def text_of(
    frames: Sequence[Mapping[int, np.ndarray]],
    end: str = "\n",
    write: Callable[[float], str] = seven_digits,
) -> bytes:
    """The content of a file.

    Args:
        frames: for each frame, the joints (25, 3) of each body by its tracking id.
        end: what ends a line.
        write: writes a number.
    """
    random = np.random.default_rng(len(frames))
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies.items():
            lean = " ".join(map(write, random.uniform(-1, 1, 2)))
            lines += [f"{body} 0 1 1 0 1 0 {lean} 2", str(JOINTS)]
            for joint in joints:
                rest = [*random.uniform(0, 1000, 4), *random.uniform(-1, 1, 4)]
                lines.append(" ".join([*map(write, joint), *map(write, rest), "2"]))
    return "".join(line + end for line in lines).encode()


def moving(frames: int, seed: int = 0, amount: float = 0.02, place: float = 0.0) -> np.ndarray:
    """Somebody upright who drifts about: (frames, 25, 3)."""
    steps = np.random.default_rng(seed).normal(0, amount, (frames, JOINTS, 3))
    return POSE + [place, 0, 0] + np.cumsum(steps, axis=0)


def recording(frames: int = 4, seed: int = 0) -> bytes:
    """The content of a file with one body."""
    return text_of([{BODY: joints} for joints in moving(frames, seed)])


def fill(raw: Path, names: Sequence[str], frames: int = 4) -> dict[str, bytes]:
    """Write a file for each name and return the contents."""
    raw.mkdir(parents=True, exist_ok=True)
    contents = {name: recording(frames, seed) for seed, name in enumerate(names)}
    for name, data in contents.items():
        (raw / f"{name}.skeleton").write_bytes(data)
    return contents
