"""Tracks keep their numbers: through a crossing, through hiding, and never beyond what there is room for."""

import numpy as np
import pytest

from qwenlab.thinkseg.association import Detection, Tracker, shift


def square(y: float, x: float, half: int = 4, size: int = 64) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[max(0, round(y) - half) : round(y) + half, max(0, round(x) - half) : round(x) + half] = True
    return mask


def ids(tracker: Tracker, *masks: np.ndarray) -> list[int | None]:
    tracks = tracker.step([Detection(0.9, mask) for mask in masks])
    return [track.object_id if track else None for track in tracks]


def test_two_things_that_cross_keep_their_numbers():
    tracker = Tracker(0.1, 6, 16)
    for frame in range(13):
        left, right = square(30, 10 + 3 * frame), square(30, 50 - 3 * frame)
        order = (left, right) if frame % 2 else (right, left)  # detections come in any order
        assert ids(tracker, *order) == ([0, 1] if frame % 2 else [1, 0]) if frame else ids(tracker, left, right)


def test_without_velocity_the_same_crossing_would_swap():
    tracker = Tracker(0.1, 6, 16)
    ids(tracker, square(30, 10), square(30, 50))
    for frame in range(1, 13):
        for track in tracker.tracks:
            track.velocity[:] = 0
        found = ids(tracker, square(30, 10 + 3 * frame), square(30, 50 - 3 * frame))
    assert found == [1, 0]


def test_a_thing_hidden_for_a_while_gets_its_number_back_where_it_should_reappear():
    tracker = Tracker(0.1, 6, 16)
    for frame in range(6):
        assert ids(tracker, square(30, 10 + 3 * frame)) == [0]
    for _ in range(5):
        assert ids(tracker) == []
    assert ids(tracker, square(30, 10 + 3 * 11)) == [0]


def test_a_thing_hidden_for_longer_is_a_new_one():
    tracker = Tracker(0.1, 2, 16)
    ids(tracker, square(30, 30))
    for _ in range(3):
        ids(tracker)
    assert ids(tracker, square(30, 30)) == [1]


def test_a_far_detection_begins_a_track_and_room_is_limited():
    tracker = Tracker(0.1, 6, 2)
    assert ids(tracker, square(10, 10), square(10, 40), square(50, 50)) == [0, 1, None]
    assert ids(tracker, square(50, 50), square(10, 11)) == [None, 0]


def test_a_weak_detection_continues_a_track_and_begins_none():
    tracker = Tracker(0.1, 6, 16, score=0.5)
    strong, weak = Detection(0.9, square(30, 30)), Detection(0.3, square(30, 31))
    assert tracker.step([weak]) == [None]
    assert tracker.step([strong])[0].object_id == 0
    assert tracker.step([weak])[0].object_id == 0


@pytest.mark.parametrize("by", [(3, -2), (-5, 0), (0, 0), (70, 0), (0, -64)])
def test_shifting_moves_pixels_and_drops_what_leaves(by: tuple[int, int]):
    mask = square(32, 32, 6)
    moved = shift(mask, np.array(by, float))
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask) + by:
        if 0 <= y < 64 and 0 <= x < 64:
            expected[y, x] = True
    assert np.array_equal(moved, expected)


@pytest.mark.parametrize("source", ["drift", "crossing", "crowd"])
def test_with_perfect_detections_no_clip_has_a_switch_or_a_lost_track(source: str):
    """Twins and complete hiding included: what is lost on clips, the detector loses."""
    from qwenlab.thinkseg.clips import make_clip

    for index in range(25):
        clip = make_clip(source, 0, index)
        for phrase in {thing.phrase for thing in clip.things}:
            own = [k for k, thing in enumerate(clip.things) if thing.phrase == phrase]
            tracker, owners = Tracker(0.1, 6, 16), {}
            for frame in clip.masks:
                seen = [k for k in own if frame[k].any()]
                for k, number in zip(seen, ids(tracker, *(frame[k] for k in seen)), strict=True):
                    owners.setdefault(k, set()).add(number)
            assert all(len(numbers) == 1 for numbers in owners.values()), (clip.clip_id, phrase, owners)
