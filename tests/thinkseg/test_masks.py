"""NMS, holes and specks by hand; and the library runs its own logic with them once they are installed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwenlab.thinkseg.masks import component_areas, install, mask_iou, nms, tidy


def box(top: int, left: int, bottom: int, right: int, size: int = 16) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_iou_of_masks_is_common_over_united_area():
    masks = np.stack([box(0, 0, 4, 4), box(0, 2, 4, 6), box(8, 8, 9, 9), box(0, 0, 0, 0)])
    assert mask_iou(masks, masks) == pytest.approx(
        np.array([[1, 8 / 24, 0, 0], [8 / 24, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    )


def test_of_two_overlapping_detections_the_better_one_stays():
    masks = np.stack([box(0, 0, 8, 8), box(0, 1, 8, 9), box(10, 10, 14, 14)])
    assert nms(mask_iou(masks, masks), np.array([0.6, 0.9, 0.7]), 0.5) == [1, 2]
    assert nms(mask_iou(masks, masks), np.array([0.6, 0.9, 0.7]), 0.9) == [1, 2, 0]
    assert nms(np.zeros((0, 0)), np.zeros(0), 0.5) == []


def test_a_detection_that_a_dropped_one_overlapped_is_kept():
    ious = np.array([[1, 0.8, 0.1], [0.8, 1, 0.8], [0.1, 0.8, 1]])
    assert nms(ious, np.array([0.9, 0.8, 0.7]), 0.5) == [0, 2]


def test_small_holes_are_filled_and_large_ones_stay():
    mask = box(0, 0, 14, 14)
    mask[2:4, 2:4] = False
    mask[6:12, 6:12] = False
    cleaned = tidy(mask, 4)
    assert cleaned[2:4, 2:4].all() and not cleaned[6:12, 6:12].any()


def test_specks_go_but_a_mask_that_is_one_speck_stays():
    mask = box(0, 0, 8, 8) | box(12, 12, 14, 14)
    assert np.array_equal(tidy(mask, 4), box(0, 0, 8, 8))
    assert np.array_equal(tidy(box(3, 3, 5, 5), 4), box(3, 3, 5, 5))
    assert np.array_equal(tidy(mask, 0), mask)


@given(arrays.arrays(bool, (12, 12)), st.integers(0, 20))
def test_tidying_empties_no_mask_and_changes_small_components_only(mask: np.ndarray, area: int):
    cleaned = tidy(mask, area)
    assert cleaned.any() == mask.any()
    assert (component_areas(~mask)[cleaned & ~mask] <= area).all()
    assert (component_areas(mask)[mask & ~cleaned] <= area).all()


def test_the_library_suppresses_doubles_and_fills_holes_with_our_functions():
    import torch
    from transformers.models.sam3_video import modeling_sam3_video as library

    before, library.cv_utils_kernel = library.cv_utils_kernel, False
    try:
        logits = torch.full((3, 16, 16), -5.0)
        logits[0, :8, :8] = logits[1, :8, 1:9] = logits[2, 10:14, 10:14] = 5.0
        scores = torch.tensor([0.6, 0.9, 0.7])
        assert library.nms_masks(scores, logits, 0.5, 0.5).tolist() == [True, True, True]  # skipped, silently
        holed = torch.full((1, 1, 16, 16), -5.0)
        holed[0, 0, :14, :14] = 5.0
        holed[0, 0, 2:4, 2:4] = -5.0
        assert (library.fill_holes_in_mask_scores(holed, 4)[0, 0, 2:4, 2:4] < 0).all()
        assert install()
        assert library.nms_masks(scores, logits, 0.5, 0.5).tolist() == [False, True, True]
        filled = library.fill_holes_in_mask_scores(holed, 4)
        assert (filled[0, 0, 2:4, 2:4] > 0).all() and (filled[0, 0, 14:] < 0).all()
        assert not install()  # once is enough
    finally:
        library.cv_utils_kernel = before
