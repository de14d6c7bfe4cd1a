"""Scores of video object segmentation: J, F and J&F as DAVIS defines them, ID switches, track success.

Perazzi et al. 2016 (J: region IoU; F: of boundaries, found within 0.8% of the picture's diagonal); tracks are matched
to the true things as in DAVIS 2019 unsupervised: the best one-to-one matching over the whole clip, among those of the
same phrase.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment

from qwenlab.thinkseg.masks import mask_iou

BOUND = 0.008  # of the diagonal (DAVIS)


def region(found: np.ndarray, truth: np.ndarray) -> float:
    """J of one frame: IoU of bool `[H, W]` masks; 1 when both are empty."""
    union = np.count_nonzero(found | truth)
    return 1.0 if union == 0 else np.count_nonzero(found & truth) / union


def outline(mask: np.ndarray) -> np.ndarray:
    """The one pixel wide boundary of a mask as DAVIS draws it: pixels that differ from their right, lower or lower
    right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def boundary(found: np.ndarray, truth: np.ndarray) -> float:
    """F of one frame: the F-measure of boundary pixels that have one of the other mask within the tolerance.

    1 when both masks are empty, 0 when one is.
    """
    one, two = outline(found), outline(truth)
    counts = np.count_nonzero(one), np.count_nonzero(two)
    if 0 in counts:
        return float(counts == (0, 0) and found.any() == truth.any())
    reach = math.ceil(BOUND * math.hypot(*found.shape))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = x**2 + y**2 <= reach**2
    precision = np.count_nonzero(one & binary_dilation(two, disk)) / counts[0]
    recall = np.count_nonzero(two & binary_dilation(one, disk)) / counts[1]
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class Score:
    """One true thing in one clip. `switches` counts changes of the track that lies on it."""

    phrase: str
    j: float
    f: float
    switches: int
    success: bool  # its track overlaps it by half or more, on the mean of the frames in which it is visible

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


def _switches(tracks: dict[int, np.ndarray], truth: np.ndarray) -> int:
    """How often the track that overlaps the truth (`[T, H, W]`) by half or more is another one than before."""
    last, count = None, 0
    ids = list(tracks)
    for frame in range(len(truth)):
        if not ids or not truth[frame].any():
            continue
        ious = mask_iou(np.stack([tracks[i][frame] for i in ids]), truth[frame][None])[:, 0]
        if ious.max() >= 0.5:
            now = ids[int(ious.argmax())]
            count += last is not None and now != last
            last = now
    return count


def score_clip(
    tracks: dict[int, tuple[str, np.ndarray]], truth: list[tuple[str, np.ndarray]]
) -> tuple[list[Score], int]:
    """Scores of every true thing, and the number of tracks that belong to none.

    Args:
        tracks: number -> phrase and masks `[T, H, W]`.
        truth: phrase and masks `[T, H, W]` of each thing; a thing that nothing was found for scores as an empty track.
    """
    scores: list[Score | None] = [None] * len(truth)
    left_over = len(tracks)
    for phrase in {phrase for phrase, _ in truth}:
        things = [index for index, (own, _) in enumerate(truth) if own == phrase]
        own_tracks = {i: masks for i, (its, masks) in tracks.items() if its == phrase}
        ids = list(own_tracks)
        table = np.array([[np.mean([*map(region, own_tracks[i], truth[k][1])]) for i in ids] for k in things]).reshape(
            len(things), len(ids)
        )
        pairs = dict(zip(*(side.tolist() for side in linear_sum_assignment(-table)), strict=True))
        left_over -= len(pairs)
        for row, k in enumerate(things):
            masks = truth[k][1]
            found = own_tracks[ids[pairs[row]]] if row in pairs else np.zeros_like(masks)
            visible = [frame for frame in range(len(masks)) if masks[frame].any()]
            each = [region(found[frame], masks[frame]) for frame in range(len(masks))]
            success = bool(visible) and float(np.mean([each[frame] for frame in visible])) >= 0.5
            edges = float(np.mean([*map(boundary, found, masks)]))
            scores[k] = Score(phrase, float(np.mean(each)), edges, _switches(own_tracks, masks), success)
    return [score for score in scores if score is not None], left_over
