"""Tracks from detections, frame by frame: Hungarian matching of masks, each moved on by its velocity.

For a detector without a tracker (`Sam3Model`); `Sam3VideoModel` brings its own. One tracker serves one phrase, so
that no track changes its concept.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from qwenlab.thinkseg.masks import mask_iou


@dataclass(frozen=True, eq=False)
class Detection:
    """One thing in one frame: score in 0..1, mask bool `[H, W]` with at least one pixel."""

    score: float
    mask: np.ndarray


@dataclass(eq=False)
class Track:
    """One thing through time. `velocity` is in pixels a frame, (y, x)."""

    object_id: int
    mask: np.ndarray
    centre: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    hits: int = 1
    missed: int = 0  # frames since it was last seen

    def ahead(self) -> np.ndarray:
        """Its mask where it should be in the next frame."""
        return shift(self.mask, self.velocity * (self.missed + 1))


def centre_of(mask: np.ndarray) -> np.ndarray:
    """Mean (y, x) of the true pixels."""
    return np.argwhere(mask).mean(0)


def shift(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The mask moved by whole pixels (y, x); what leaves the picture is gone."""
    dy, dx = np.rint(by).astype(int)
    height, width = mask.shape
    moved = np.zeros_like(mask)
    if abs(dy) < height and abs(dx) < width:
        moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
            max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
        ]
    return moved


class Tracker:
    """The tracks of one phrase.

    Args:
        match_iou: least IoU of a detection and a track's mask where it should be.
        keep_alive: frames that a track survives unseen.
        max_objects: most tracks at a time; a scene that is one great false alarm must not eat the memory.
    """

    def __init__(self, match_iou: float, keep_alive: int, max_objects: int):
        self.match_iou, self.keep_alive, self.max_objects = match_iou, keep_alive, max_objects
        self.next_id = 0
        self.tracks: list[Track] = []

    def step(self, detections: list[Detection]) -> list[Track | None]:
        """Take one frame's detections (the best first) and return the track of each; None when there is no room."""
        owner: dict[int, Track] = {}
        if self.tracks and detections:
            ious = mask_iou(np.stack([t.ahead() for t in self.tracks]), np.stack([d.mask for d in detections]))
            for row, column in zip(*linear_sum_assignment(-ious), strict=True):
                if ious[row, column] >= self.match_iou:
                    owner[int(column)] = self.tracks[row]
        for index, track in owner.items():
            self._update(track, detections[index].mask)
        seen = {track.object_id for track in owner.values()}
        for track in self.tracks:
            track.missed += track.object_id not in seen
        self.tracks = [track for track in self.tracks if track.missed <= self.keep_alive]
        for index, detection in enumerate(detections):
            if index not in owner and len(self.tracks) < self.max_objects:
                owner[index] = Track(self.next_id, detection.mask, centre_of(detection.mask))
                self.tracks.append(owner[index])
                self.next_id += 1
        return [owner.get(index) for index in range(len(detections))]

    @staticmethod
    def _update(track: Track, mask: np.ndarray) -> None:
        centre = centre_of(mask)
        step = (centre - track.centre) / (track.missed + 1)
        # The first step is all that is known; later ones are smoothed, because masks tremble.
        track.velocity = step if track.hits == 1 else 0.6 * track.velocity + 0.4 * step
        track.mask, track.centre, track.missed = mask, centre, 0
        track.hits += 1
