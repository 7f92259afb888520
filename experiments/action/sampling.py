"""Which frames of a recording are shown, as positions in time.

    whole     all of them
    segments  n frames: the recording is cut into n equal segments, and one frame is taken of each:
              a random one in training; at test several clips, each of which takes another place
              of the segments (the protocol of IndRNN's published figures on NTU RGB+D, n = 20)
    window    n successive steps, for recordings of many repetitions: from a random step on in
              training; at test one window every ``hop`` steps, each a sequence of its own

A position may lie between two frames. ``time`` stretches time in training: up to that share of the
recording is left out at the ends, and the rest plays faster or slower by up to that share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLINGS = ("whole", "segments", "window")


@dataclass(frozen=True)
class Sampling:
    """How frames are chosen.

    Attributes:
        kind: one of ``SAMPLINGS``.
        frames: n; not used by ``whole``.
        clips: of a recording at test; for ``segments`` alone.
        hop: steps from a window to the next; for ``window`` alone.
    """

    kind: str
    frames: int
    clips: int
    hop: int

    def sequences(self, length: int) -> int:
        """How many sequences a recording of ``length`` frames makes in an epoch, and at test."""
        return 1 + (length - self.frames) // self.hop if self.kind == "window" else 1

    def draw(self, length: int, time: float, generator: np.random.Generator) -> np.ndarray:
        """Positions for training, (n,) float64 from 0 to length - 1."""
        if self.kind == "window":
            speed = 1 + generator.uniform(-time, time)
            span = min((self.frames - 1) * speed, length - 1)
            return generator.uniform(0, length - 1 - span) + np.linspace(0, span, self.frames)
        begin, end = _part(length, time, generator)
        if self.kind == "segments":
            places = (np.arange(self.frames) + generator.random(self.frames)) / self.frames
            # The frame that is shown at that moment: never one between two.
            return np.floor(begin + places * (end - begin)).clip(0, length - 1)
        speed = 1 + generator.uniform(-time, time)
        shown = max(1, round((end - begin) / speed))
        return np.linspace(begin, max(begin, end - 1), shown)

    def clips_of(self, length: int, sequence: int) -> np.ndarray:
        """Positions at test, (clips, n) float64, of one of the recording's sequences."""
        if self.kind == "window":
            return (sequence * self.hop + np.arange(self.frames, dtype=float))[None]
        if self.kind == "whole":
            return np.arange(length, dtype=float)[None]
        # Clip k of K takes the frame at (k + 1/2) / K of each segment; whole numbers do not round.
        halves = 2 * np.arange(self.clips) + 1
        places = 2 * self.clips * np.arange(self.frames) + halves[:, None]
        return (places * length // (2 * self.clips * self.frames)).astype(float)


def _part(length: int, time: float, generator: np.random.Generator) -> tuple[float, float]:
    """Begin and end, between 0 and length, of what is left without the ends."""
    left_out = generator.uniform(0, time) * length
    begin = generator.uniform(0, left_out)
    return begin, length - left_out + begin


def take(frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The frames at ``positions``, linear in between: (n, ...) float32."""
    before = np.floor(positions).astype(np.int64)
    shares = (positions - before).astype(np.float32)
    taken = frames[before]
    if not shares.any():
        return taken
    after = frames[np.minimum(before + 1, len(frames) - 1)]
    return taken + shares.reshape(-1, *[1] * (frames.ndim - 1)) * (after - taken)
