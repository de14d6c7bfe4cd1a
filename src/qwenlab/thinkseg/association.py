"""Tracks from detections, frame by frame: Hungarian matching of masks, each moved on by its velocity.

For a detector without a tracker (`Sam3Model`); `Sam3VideoModel` brings its own. One tracker serves one phrase, so
that no track changes its concept. A thing that something else half hides must not lose its way: while its mask is
much smaller than it was, its velocity stays, and detections are compared with where the whole of it should be.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from qwenlab.thinkseg.masks import mask_iou

WHOLE = 0.88  # of the area that the whole has; a smaller mask is partly hidden
FADE = 0.99  # of that area stays from frame to frame, because things also grow small as they move away


@dataclass(frozen=True, eq=False)
class Detection:
    """One thing in one frame: score in 0..1, mask bool `[H, W]` with at least one pixel."""

    score: float
    mask: np.ndarray


@dataclass(eq=False)
class Track:
    """One thing through time: its mask when it was last seen whole, where that mask's centre (y, x) is by now, and its
    velocity in pixels a frame."""

    object_id: int
    whole: np.ndarray
    centre: np.ndarray
    area: float  # of the whole
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    hits: int = 1
    missed: int = 0  # frames since it was last seen

    def ahead(self) -> np.ndarray:
        """The whole of it where it should be in the next frame."""
        return shift(self.whole, self.centre + self.velocity - centre_of(self.whole))

    def pass_frame(self) -> None:
        """It was not seen: it moves on as before."""
        self.centre, self.missed = self.centre + self.velocity, self.missed + 1

    def update(self, mask: np.ndarray) -> None:
        """It was seen. Part of it alone says little about where the whole is: then it moves on as before."""
        self.area = max(FADE * self.area, float(mask.sum()))
        if mask.sum() >= WHOLE * self.area:
            centre = centre_of(mask)
            step = centre - self.centre + self.velocity * self.missed
            step = step / (self.missed + 1)
            # The first step is all that is known; later ones are smoothed, because masks tremble, the more so the
            # less of the thing is there: where it begins to be hidden, its centre seems to slow down.
            gain = 1.0 if self.hits == 1 else 0.4 if mask.sum() >= 0.97 * self.area else 0.1
            self.velocity = (1 - gain) * self.velocity + gain * step
            self.whole, self.centre = mask, centre
        else:
            self.centre = self.centre + self.velocity
        self.hits, self.missed = self.hits + 1, 0


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


def likeness(track: Track, masks: np.ndarray) -> np.ndarray:
    """How well detections `[M, H, W]` fit a thing, `[M]`: IoU with the whole of it where it should be, or, if that is
    more, half of the share of a detection that lies inside the thing's box, grown by a fifth on every side. So a sliver
    that comes out from behind something is still it."""
    ahead = track.ahead()
    iou = mask_iou(ahead[None], masks)[0]
    if not ahead.any():
        return iou
    ys, xs = np.flatnonzero(ahead.any(1)), np.flatnonzero(ahead.any(0))
    dy, dx = (len(side) // 5 + 1 for side in (ys, xs))
    inside = masks[:, max(ys[0] - dy, 0) : ys[-1] + dy + 1, max(xs[0] - dx, 0) : xs[-1] + dx + 1].sum((1, 2))
    sizes = masks.sum((1, 2))
    return np.maximum(iou, 0.5 * inside / np.maximum(sizes, 1) * (sizes <= 1.2 * track.area))


class Tracker:
    """The tracks of one phrase.

    Args:
        match_iou: least `likeness` of a detection and a thing.
        keep_alive: frames that a track survives unseen.
        max_objects: most tracks at a time; a scene that is one great false alarm must not eat the memory.
        score: least score of a detection that begins a track; weaker ones only continue one (ByteTrack, 2022).
    """

    def __init__(self, match_iou: float, keep_alive: int, max_objects: int, score: float = 0.0):
        self.match_iou, self.keep_alive, self.max_objects, self.score = match_iou, keep_alive, max_objects, score
        self.next_id = 0
        self.tracks: list[Track] = []

    def step(self, detections: list[Detection]) -> list[Track | None]:
        """Take one frame's detections (the best first) and return the track of each; None where it has none."""
        owner: dict[int, Track] = {}
        if self.tracks and detections:
            masks = np.stack([detection.mask for detection in detections])
            table = np.stack([likeness(track, masks) for track in self.tracks])
            for row, column in zip(*linear_sum_assignment(-table), strict=True):
                if table[row, column] >= self.match_iou:
                    owner[int(column)] = self.tracks[row]
        for index, track in owner.items():
            track.update(detections[index].mask)
        seen = {track.object_id for track in owner.values()}
        for track in self.tracks:
            if track.object_id not in seen:
                track.pass_frame()
        self.tracks = [track for track in self.tracks if track.missed <= self.keep_alive]
        for index, detection in enumerate(detections):
            if index not in owner and detection.score >= self.score and len(self.tracks) < self.max_objects:
                owner[index] = Track(
                    self.next_id, detection.mask, centre_of(detection.mask), float(detection.mask.sum())
                )
                self.tracks.append(owner[index])
                self.next_id += 1
        return [owner.get(index) for index in range(len(detections))]
