"""From the bodies in a file to the frames of a recording: who acts, and where they are not seen.

Kinect gives each body that it follows a tracking id; a body that it loses and finds again gets a
new one, and furniture may be taken for a body. So:

- The bodies of one id are a track. Where there are others, a track is noise if it is seen in fewer
  than 12 frames, or if its mean pose is wider than 0.8 of its height: a person at work is upright,
  and false bodies are mostly not. If every track is noise in one of these ways, that way is not
  asked. (Both limits follow the preprocessing published with the networks of Zhang et al., 2020,
  who count wide frames where the mean pose is taken here.)
- The motion of a track is the sum over its frames of the squared distance of the joints from their
  mean place, averaged over the joints, in square metres. The track with most motion is the first
  actor. In the order of their motion, further tracks continue an actor whom they do not overlap in
  time, if their nearest ends are within a metre; else they become the second actor, if there is
  none, or are dropped.
- Frames in which no actor is seen are dropped. A gap between two sightings of an actor is filled by
  straight lines, joint by joint. Before the first and after the last sighting the first actor holds
  its pose, so that it is there in every frame; the second is all zero, as it is in recordings that
  have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.datasets.ntu.text import SkeletonError, Skeletons, line_of_body

ACTORS = 2
SHORTEST_TRACK = 12
WIDEST_POSE = 0.8
FARTHEST_JUMP = 1.0


@dataclass(frozen=True, eq=False)
class _Track:
    """A body over time.

    Attributes:
        frames: (n,) int64, growing.
        places: (n, 25, 3) float32, metres.
    """

    frames: np.ndarray
    places: np.ndarray

    def overlaps(self, other: _Track) -> bool:
        return self.frames[0] <= other.frames[-1] and other.frames[0] <= self.frames[-1]

    def jump_to(self, other: _Track) -> float:
        """Metres between the nearest ends, of two tracks that do not overlap."""
        first, second = sorted((self, other), key=lambda track: track.frames[0])
        return float(np.linalg.norm(first.places[-1, 0] - second.places[0, 0]))

    def joined_with(self, other: _Track) -> _Track:
        first, second = sorted((self, other), key=lambda track: track.frames[0])
        return _Track(
            np.concatenate([first.frames, second.frames]),
            np.concatenate([first.places, second.places]),
        )


def main_actors(skeletons: Skeletons) -> np.ndarray:
    """The one or two who act, as this module describes.

    Returns:
        (length, 2, 25, 3) float32, metres, in memory of its own.

    Raises:
        SkeletonError: two bodies of a frame have the same tracking id.
    """
    actors = _actors(_by_motion(_tracks(skeletons)))
    times = actors[0].frames
    for actor in actors[1:]:
        if len(actor.frames) != len(times) or (actor.frames != times).any():
            times = np.union1d(times, actor.frames)
    out = np.zeros((len(times), ACTORS, *actors[0].places.shape[1:]), np.float32)
    for index, actor in enumerate(actors):
        _fill(out[:, index], times, actor, hold=index == 0)
    return out


def _tracks(skeletons: Skeletons) -> list[_Track]:
    places = np.ascontiguousarray(skeletons.joints[:, :, :3])
    tracks = []
    for body in dict.fromkeys(skeletons.body.tolist()):
        [own] = np.nonzero(skeletons.body == body)
        frames = skeletons.frame[own]
        [again] = np.nonzero(frames[1:] == frames[:-1])
        if len(again):
            at = int(own[again[0] + 1])
            frame = int(skeletons.frame[at])
            raise SkeletonError(
                f"the tracking id {body} is there twice in frame {frame + 1}",
                line_of_body(frame, at),
            )
        tracks.append(_Track(frames, places[own]))
    return tracks


def _by_motion(tracks: list[_Track]) -> list[_Track]:
    """Leave out noise and sort the rest, most motion first."""
    if len(tracks) == 1:
        return tracks
    tracks = [t for t in tracks if len(t.frames) >= SHORTEST_TRACK] or tracks
    means = [track.places.mean(axis=0) for track in tracks]
    extents = [mean.max(axis=0) - mean.min(axis=0) for mean in means]
    wide = [width > WIDEST_POSE * height for width, height, _ in extents]
    motions = [_motion(track, mean) for track, mean in zip(tracks, means, strict=True)]
    kept = [i for i in range(len(tracks)) if not wide[i]] or list(range(len(tracks)))
    return [tracks[i] for i in sorted(kept, key=lambda i: -motions[i])]


def _motion(track: _Track, mean: np.ndarray) -> float:
    away = (track.places - mean).ravel()
    return float(away @ away) / len(mean)


def _actors(tracks: list[_Track]) -> list[_Track]:
    actors = [tracks[0]]
    for track in tracks[1:]:
        jumps = {
            i: actor.jump_to(track) for i, actor in enumerate(actors) if not actor.overlaps(track)
        }
        nearest = min(jumps, key=jumps.__getitem__, default=None)
        if nearest is not None and jumps[nearest] <= FARTHEST_JUMP:
            actors[nearest] = actors[nearest].joined_with(track)
        elif len(actors) < ACTORS:
            actors.append(track)
    return actors


def _fill(out: np.ndarray, times: np.ndarray, actor: _Track, hold: bool) -> None:
    """Write an actor's places at all times: (length, 25, 3)."""
    if len(actor.frames) == len(times):
        out[:] = actor.places
        return
    last = len(actor.frames) - 1
    after = np.searchsorted(actor.frames, times).clip(0, last)
    before = (np.searchsorted(actor.frames, times, side="right") - 1).clip(0, last)
    span = actor.frames[after] - actor.frames[before]
    share = (times - actor.frames[before]) / np.maximum(span, 1)
    share = share.clip(0, 1).astype(np.float32)[:, None, None]
    out[:] = (1 - share) * actor.places[before] + share * actor.places[after]
    if not hold:
        out[(times < actor.frames[0]) | (times > actor.frames[-1])] = 0
