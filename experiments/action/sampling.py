"""Which frames of a recording are shown, as positions in time.

    whole     all of them
    segments  n frames, one of each of n equal segments of the recording: a random one in training;
              at test several clips, each from another place of the segments (the protocol of
              IndRNN's published figures on NTU RGB+D, with n = 20)
    window    n successive steps, for recordings of many repetitions: from a random step on in
              training; at test a window every ``hop`` steps, each a sequence of its own

A position may lie between two frames. ``time`` stretches time in training: up to that share of the
recording is cut off at the ends, and the rest plays faster or slower by up to that share.
"""

from dataclasses import dataclass

import numpy as np

SAMPLINGS = ("whole", "segments", "window")


@dataclass(frozen=True)
class Sampling:
    """A choice of frames: n ``frames``, and ``clips`` of ``segments`` or a ``hop`` of windows."""

    kind: str
    frames: int
    clips: int
    hop: int

    def sequences(self, length: int) -> int:
        """Return the number of sequences of a recording of ``length`` frames."""
        return 1 + (length - self.frames) // self.hop if self.kind == "window" else 1

    def draw(self, length: int, time: float, generator: np.random.Generator) -> np.ndarray:
        """Draw positions for training, (n,) float64 from 0 to length - 1."""
        if self.kind == "window":
            speed = 1 + generator.uniform(-time, time)
            span = min((self.frames - 1) * speed, length - 1)
            return generator.uniform(0, length - 1 - span) + np.linspace(0, span, self.frames)
        cut = generator.uniform(0, time) * length
        begin = generator.uniform(0, cut)
        end = length - cut + begin
        if self.kind == "segments":
            places = (np.arange(self.frames) + generator.random(self.frames)) / self.frames
            # The frame shown at that moment: never a position between two.
            return np.floor(begin + places * (end - begin)).clip(0, length - 1)
        speed = 1 + generator.uniform(-time, time)
        shown = max(1, round((end - begin) / speed))
        return np.linspace(begin, max(begin, end - 1), shown)

    def clips_of(self, length: int, sequence: int) -> np.ndarray:
        """Return the positions of one of the recording's sequences at test, (clips, n) float64."""
        if self.kind == "window":
            return (sequence * self.hop + np.arange(self.frames, dtype=float))[None]
        if self.kind == "whole":
            return np.arange(length, dtype=float)[None]
        # Clip k of K takes the frame at (k + 1/2) / K of each segment, in integers.
        halves = 2 * np.arange(self.clips) + 1
        places = 2 * self.clips * np.arange(self.frames) + halves[:, None]
        return (places * length // (2 * self.clips * self.frames)).astype(float)


def take(frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the frames at ``positions``, interpolated linearly, (n, ...) float32."""
    before = np.floor(positions).astype(np.int64)
    shares = (positions - before).astype(np.float32)
    taken = frames[before]
    if not shares.any():
        return taken
    after = frames[np.minimum(before + 1, len(frames) - 1)]
    return taken + shares.reshape(-1, *[1] * (frames.ndim - 1)) * (after - taken)
