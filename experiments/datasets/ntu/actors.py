"""From the bodies in a file to the frames of a recording: who acts, and what fills their gaps.

Kinect gives each body that it follows a tracking id; a body that it loses and finds again gets a
new one, and furniture may be taken for a body. So:

- The bodies of one id are a track. Where there are others, a track is noise if it has fewer than 12
  frames, or if its mean pose is wider than 0.8 of its height: people are mostly upright. A
  criterion that would leave no track is skipped. (Both limits follow the preprocessing published
  with the networks of Zhang et al., 2020, who count wide frames where the mean pose is taken here.)
- The motion of a track is the squared distance of its joints from their mean positions, in square
  metres, averaged over the joints and summed over the frames. The track with most motion is the
  first actor. In the order of their motion, each further track continues an actor whom it does not
  overlap in time, if their nearest ends are within a metre; otherwise it becomes the second actor
  if there is none yet, and is dropped if there is.
- Frames without an actor are dropped. Gaps between two sightings of an actor are filled by linear
  interpolation of each joint. Before its first and after its last sighting the first actor keeps
  its pose, so that it is present in every frame; the second is zero there, as it is in recordings
  of one person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.datasets.ntu.reader import BODY_LINES, Skeletons
from experiments.datasets.recordings import SkeletonError

ACTORS = 2
SHORTEST_TRACK = 12
WIDEST_POSE = 0.8
FARTHEST_JUMP = 1.0


@dataclass(frozen=True, eq=False)
class _Track:
    """A body in increasing frames, (n,) int64, at places in metres, (n, 25, 3) float32."""

    frames: np.ndarray
    places: np.ndarray

    def overlaps(self, other: _Track) -> bool:
        return self.frames[0] <= other.frames[-1] and other.frames[0] <= self.frames[-1]

    def is_wide(self) -> bool:
        width, height, _ = np.ptp(self.places.mean(axis=0), axis=0)
        return bool(width > WIDEST_POSE * height)

    def motion(self) -> float:
        away = (self.places - self.places.mean(axis=0)).ravel()
        return float(away @ away)

    def jump_to(self, other: _Track) -> float:
        """Return the metres between the nearest ends of two tracks that do not overlap."""
        first, second = sorted((self, other), key=lambda track: track.frames[0])
        return float(np.linalg.norm(first.places[-1, 0] - second.places[0, 0]))

    def joined_with(self, other: _Track) -> _Track:
        both = sorted((self, other), key=lambda track: track.frames[0])
        frames, places = [t.frames for t in both], [t.places for t in both]
        return _Track(np.concatenate(frames), np.concatenate(places))


def main_actors(skeletons: Skeletons) -> np.ndarray:
    """Return the one or two actors, (length, 2, 25, 3) float32, in metres."""
    actors = _actors(_by_motion(_tracks(skeletons)))
    times = np.union1d(actors[0].frames, actors[-1].frames)
    out = np.zeros((len(times), ACTORS, *actors[0].places.shape[1:]), np.float32)
    for index, actor in enumerate(actors):
        _fill(out[:, index], times, actor, hold=index == 0)
    return out


def _tracks(skeletons: Skeletons) -> list[_Track]:
    tracks = []
    for body in dict.fromkeys(skeletons.body.tolist()):
        [own] = np.nonzero(skeletons.body == body)
        frames = skeletons.frame[own]
        [again] = np.nonzero(frames[1:] == frames[:-1])
        if len(again):
            at = int(own[again[0] + 1])
            frame = int(skeletons.frame[at]) + 1
            line = 1 + frame + BODY_LINES * at + 1
            raise SkeletonError(f"the tracking id {body} is there twice in frame {frame}", line)
        tracks.append(_Track(frames, skeletons.joints[own]))
    return tracks


def _by_motion(tracks: list[_Track]) -> list[_Track]:
    """Drop noise and sort the rest by decreasing motion."""
    if len(tracks) == 1:
        return tracks
    tracks = [t for t in tracks if len(t.frames) >= SHORTEST_TRACK] or tracks
    tracks = [t for t in tracks if not t.is_wide()] or tracks
    return sorted(tracks, key=lambda track: -track.motion())


def _actors(tracks: list[_Track]) -> list[_Track]:
    actors = [tracks[0]]
    for track in tracks[1:]:
        jumps = [(a.jump_to(track), i) for i, a in enumerate(actors) if not a.overlaps(track)]
        jump, nearest = min(jumps, default=(np.inf, 0))
        if jump <= FARTHEST_JUMP:
            actors[nearest] = actors[nearest].joined_with(track)
        elif len(actors) < ACTORS:
            actors.append(track)
    return actors


def _fill(out: np.ndarray, times: np.ndarray, actor: _Track, hold: bool) -> None:
    """Write an actor's places at ``times`` to ``out``, (length, 25, 3)."""
    last = len(actor.frames) - 1
    after = np.searchsorted(actor.frames, times).clip(0, last)
    before = (np.searchsorted(actor.frames, times, side="right") - 1).clip(0, last)
    span = actor.frames[after] - actor.frames[before]
    share = (times - actor.frames[before]) / np.maximum(span, 1)
    share = share.clip(0, 1).astype(np.float32)[:, None, None]
    out[:] = (1 - share) * actor.places[before] + share * actor.places[after]
    if not hold:
        out[(times < actor.frames[0]) | (times > actor.frames[-1])] = 0
