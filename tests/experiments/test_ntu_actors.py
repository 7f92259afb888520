"""Who acts: tracks by id, noise, motion, gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.reader import parse
from experiments.datasets.recordings import SkeletonError
from tests.experiments.fake_ntu import BODY, JOINTS, POSE, moving, text_of

A, B, C = BODY, BODY + 1, BODY + 2
#: Wider than high, as a table is; it does not move much.
TABLE = POSE[:, [1, 0, 2]]


def actors_of(tracks, length=40):
    """Actors of a file in which each body has places by frame: {id: {frame: (25, 3)}}."""
    frames = [{} for _ in range(length)]
    for body, places in tracks.items():
        for frame, joints in places.items():
            frames[frame][body] = joints
    return main_actors(parse(text_of(frames)))


def seen(places, *frames):
    return {frame: places[frame] for frame in frames}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_body_is_the_first_actor():
    places = moving(40)
    found = actors_of({A: seen(places, *range(40))})
    assert found.shape == (40, 2, JOINTS, 3) and found.dtype == np.float32
    close(found[:, 0], places)
    assert not found[:, 1].any()


def test_who_moves_more_comes_first():
    calm, lively = moving(40, 0, 0.001), moving(40, 1, 0.05, place=1)
    found = actors_of({A: seen(calm, *range(40)), B: seen(lively, *range(40))})
    close(found[:, 0], lively)
    close(found[:, 1], calm)


def test_a_third_body_is_dropped():
    places = [moving(40, i, amount, place=i) for i, amount in enumerate((0.01, 0.001, 0.05))]
    found = actors_of({A + i: seen(p, *range(40)) for i, p in enumerate(places)})
    close(found[:, 0], places[2])
    close(found[:, 1], places[0])


def test_a_body_that_is_seen_in_passing_is_noise():
    person, ghost = moving(40, 0), POSE + 0.3 * np.arange(40)[:, None, None]
    found = actors_of({A: seen(person, *range(40)), B: seen(ghost, *range(11))})
    close(found[:, 0], person)
    assert not found[:, 1].any()
    found = actors_of({A: seen(person, *range(40)), B: seen(ghost, *range(12))})
    close(found[:12, 0], ghost[:12])  # twelve frames are no longer in passing


def test_a_table_is_noise():
    person, table = moving(40, 0, 0.001), TABLE + np.random.default_rng(0).normal(0, 1, (40, 1, 3))
    found = actors_of({A: seen(person, *range(40)), B: seen(table, *range(40))})
    close(found[:, 0], person)
    assert not found[:, 1].any()


def test_without_anybody_else_noise_is_all_there_is():
    table = np.tile(TABLE, (5, 1, 1))
    close(actors_of({A: seen(table, *range(5))}, 5)[:, 0], table)
    lying, short = moving(40, 0)[:, :, [1, 0, 2]], moving(40, 1, 0.001)[:, :, [1, 0, 2]]
    found = actors_of({A: seen(lying, *range(3)), B: seen(short, *range(2))})
    close(found[:, 0], lying[:3])
    close(found[:2, 1], short[:2])


def test_frames_without_a_body_are_dropped():
    places = moving(40)
    kept = [2, 3, 7, 8, 9, 20]
    close(actors_of({A: seen(places, *kept)})[:, 0], places[kept])


def test_a_gap_is_filled_by_straight_lines():
    first, second = moving(40, 0, 0.05), moving(40, 1, 0.01, place=1)
    there = [*range(10), *range(14, 40)]
    found = actors_of({A: seen(first, *range(40)), B: seen(second, *there)})
    close(found[:, 0], first)
    close(found[there, 1], second[there])
    for step, frame in enumerate(range(10, 14), 1):
        close(found[frame, 1], second[9] + (second[14] - second[9]) * step / 5)


def test_a_gap_is_measured_in_frames_of_the_file():
    """Dropped frames count: the straight line runs over time, not over rows."""
    first, second = moving(40, 0, 0.05), moving(40, 1, 0.01, place=1)
    found = actors_of({A: seen(first, *range(10), 18, *range(20, 40)),
                       B: seen(second, *range(10), *range(20, 40))})  # fmt: skip
    close(found[10, 0], first[18])
    close(found[10, 1], second[9] + (second[20] - second[9]) * 9 / 11)


def test_before_and_after_it_is_seen_the_second_actor_is_zero():
    first, second = moving(40, 0, 0.05), moving(40, 1, 0.01, place=1)
    found = actors_of({A: seen(first, *range(40)), B: seen(second, *range(10, 30))})
    assert not found[:10, 1].any() and not found[30:, 1].any()
    close(found[10:30, 1], second[10:30])


def test_before_and_after_it_is_seen_the_first_actor_holds_its_pose():
    first, second = moving(40, 0, 0.05), moving(40, 1, 0.001, place=1)
    found = actors_of({A: seen(first, *range(10, 30)), B: seen(second, *range(40))})
    close(found[:10, 0], np.tile(first[10], (10, 1, 1)))
    close(found[10:30, 0], first[10:30])
    close(found[30:, 0], np.tile(first[29], (10, 1, 1)))
    close(found[:, 1], second)


def test_a_new_id_continues_the_actor_who_was_there():
    places = moving(40)
    found = actors_of({A: seen(places, *range(15)), B: seen(places, *range(18, 40))})
    close(found[:, 0], places[[*range(15), *range(18, 40)]])
    assert not found[:, 1].any()


def test_of_two_actors_the_nearer_is_continued():
    left, right = moving(40, 0, 0.02), moving(40, 1, 0.01, place=1)
    before, after = range(20), range(22, 40)
    found = actors_of({A: seen(left, *before), B: seen(right, *before),
                       C: seen(right, *after), C + 1: seen(left, *after)})  # fmt: skip
    order = [0, 1] if abs(found[0, 0, 0, 0] - left[0, 0, 0]) < 0.5 else [1, 0]
    rows = [*before, *after]
    close(found[:, order[0]], left[rows])
    close(found[:, order[1]], right[rows])


def test_somebody_far_away_is_somebody_else():
    first, second = moving(40, 0, 0.05), moving(40, 1, 0.01, place=2)
    found = actors_of({A: seen(first, *range(20)), B: seen(second, *range(20, 40))})
    close(found[:20, 0], first[:20])
    close(found[20:, 1], second[20:])
    assert not found[:20, 1].any()


def test_an_id_that_is_there_twice_in_a_frame_is_an_error():
    data = text_of([{A: POSE, B: POSE}, {A: POSE, B: POSE}])
    lines = data.split(b"\n")
    line = next(i for i in range(60, len(lines)) if lines[i].startswith(b"%d " % B))
    lines[line] = lines[line].replace(b"%d " % B, b"%d " % A)
    with pytest.raises(SkeletonError, match="is there twice in frame 2") as refusal:
        main_actors(parse(b"\n".join(lines)))
    assert refusal.value.line == line + 1


@settings(max_examples=200)
@given(
    st.lists(
        st.sets(st.integers(0, 3), max_size=4), min_size=1, max_size=30
    ).filter(any), st.integers(0, 9)
)  # fmt: skip
def test_whoever_is_there_when(sightings, seed):
    """The first actor is there in every frame, and where bodies were; the input stays as it was."""
    random = np.random.default_rng(seed)
    frames = [{A + body: POSE + random.normal(0, 1, 3) for body in bodies} for bodies in sightings]
    skeletons = parse(text_of(frames))
    before = skeletons.joints.copy()
    found = main_actors(skeletons)
    assert 1 <= len(found) <= sum(map(bool, sightings))
    assert np.isfinite(found).all()
    assert found[:, 0].any(axis=(1, 2)).all()
    lowest, highest = (f(skeletons.joints, axis=0) for f in (np.min, np.max))
    assert (found[:, 0] >= lowest - 1e-5).all() and (found[:, 0] <= highest + 1e-5).all()
    np.testing.assert_array_equal(skeletons.joints, before)
