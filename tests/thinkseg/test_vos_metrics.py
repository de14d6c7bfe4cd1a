"""J, F, switches and matching, on cases done by hand."""

import numpy as np
import pytest

from qwenlab.thinkseg.vos_metrics import boundary, outline, region, score_clip


def box(top: int, left: int, bottom: int, right: int, size: int = 64) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = np.zeros((64, 64), bool)
A, B = box(10, 10, 20, 20), box(40, 40, 50, 50)


def test_j_is_iou_and_two_empty_masks_agree():
    assert region(A, A) == 1 and region(A, B) == 0 and region(NOTHING, NOTHING) == 1 and region(A, NOTHING) == 0
    assert region(box(0, 0, 10, 10), box(0, 5, 10, 15)) == pytest.approx(50 / 150)


def test_f_forgives_one_pixel_at_this_size_and_not_three():
    assert boundary(A, A) == 1
    assert boundary(A, box(11, 10, 21, 20)) == 1  # 0.8% of the diagonal is 0.7 pixels, rounded up
    # moved by three: only the ends of the sides along the motion still match
    assert 0.3 < boundary(A, box(13, 10, 23, 20)) < 0.8
    assert boundary(A, B) == 0 and boundary(A, NOTHING) == 0 and boundary(NOTHING, NOTHING) == 1


def test_the_outline_of_a_box_is_one_pixel_wide():
    assert outline(box(10, 10, 14, 14)).sum() == 5 * 5 - 3 * 3
    assert outline(NOTHING).sum() == 0


def clip(*frames: np.ndarray) -> np.ndarray:
    return np.stack(frames)


def test_a_perfect_track_scores_one():
    scores, extra = score_clip({3: ("red circle", clip(A, B, A))}, [("red circle", clip(A, B, A))])
    assert [(s.j, s.f, s.jf, s.switches, s.success) for s in scores] == [(1, 1, 1, 0, True)] and extra == 0


def test_a_missed_thing_scores_zero_and_an_extra_track_is_counted():
    scores, extra = score_clip({0: ("red circle", clip(B, B))}, [("blue circle", clip(A, A))])
    assert (scores[0].j, scores[0].success, extra) == (0, False, 1)


def test_tracks_are_matched_to_things_as_a_whole_not_by_order():
    tracks = {0: ("red circle", clip(B, B)), 1: ("red circle", clip(A, A))}
    scores, extra = score_clip(tracks, [("red circle", clip(A, A)), ("red circle", clip(B, B))])
    assert [s.j for s in scores] == [1, 1] and extra == 0


def test_a_track_of_another_phrase_does_not_count():
    scores, extra = score_clip({0: ("red square", clip(A, A))}, [("red circle", clip(A, A))])
    assert scores[0].j == 0 and extra == 1


def test_swapped_numbers_are_switches_and_cost_j():
    tracks = {0: ("red circle", clip(A, A, B, B)), 1: ("red circle", clip(B, B, A, A))}
    truth = [("red circle", clip(A, A, A, A)), ("red circle", clip(B, B, B, B))]
    scores, _ = score_clip(tracks, truth)
    assert [s.switches for s in scores] == [1, 1] and [s.j for s in scores] == [0.5, 0.5]


def test_a_track_that_is_lost_and_found_again_is_no_switch():
    tracks = {0: ("red circle", clip(A, NOTHING, A))}
    scores, _ = score_clip(tracks, [("red circle", clip(A, A, A))])
    assert scores[0].switches == 0 and scores[0].j == pytest.approx(2 / 3)
    assert scores[0].success


def test_nothing_found_where_nothing_is_visible_is_right():
    scores, _ = score_clip({0: ("red circle", clip(A, NOTHING))}, [("red circle", clip(A, NOTHING))])
    assert scores[0].j == 1 and scores[0].f == 1


def test_without_any_track_every_thing_scores_its_empty_frames_only():
    scores, extra = score_clip({}, [("red circle", clip(A, NOTHING))])
    assert scores[0].j == 0.5 and not scores[0].success and extra == 0
