"""Segment a video by phrases: objects as COCO RLE and statistics as JSON, and one mask video with the original sound.

segmenter = Segmenter.load(load("thinkseg.sam3", Sam3Params))
result = segmenter.segment("clip.mp4", ["red circle", "blue square"])
write_outputs(result, "out/clip")        # segmentation.json, mask_video.mp4
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, make_dir, write_json
from qwenlab.thinkseg import rle
from qwenlab.thinkseg.overlay import color_of, overlay
from qwenlab.thinkseg.sam3 import ImageSegmenter, Sam3Params, Seen, VideoSegmenter, clean_phrases, load_segmenter
from qwenlab.thinkseg.video import VideoInfo, read_frames, video_info, write_video


@dataclass
class ObjectTrack:
    """One object of a video: per frame in which it is seen a score, a box and a mask (RLE)."""

    object_id: int
    phrase: str
    frames: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    masks: list[dict] = field(default_factory=list)

    def add(self, frame: int, seen: Seen) -> None:
        """What a segmenter saw of it in a frame."""
        self.frames.append(frame)
        self.scores.append(round(seen.score, 4))
        self.boxes.append(seen.box)
        self.masks.append(rle.encode(seen.mask))

    def dense(self, count: int, shape: tuple[int, int]) -> np.ndarray:
        """Masks of all frames, bool `[count, H, W]`."""
        masks = np.zeros((count, *shape), bool)
        for frame, mask in zip(self.frames, self.masks, strict=True):
            masks[frame] = rle.decode(mask)
        return masks


@dataclass
class Segmentation:
    """All objects of a video. Masks are kept as RLE, some hundred bytes an object and frame; pixels are not."""

    video: str
    phrases: list[str]
    frames: int
    info: VideoInfo
    objects: list[ObjectTrack]

    def statistics(self) -> dict:
        """Counts for people and for `qwenlab think`; every frame was looked at, so the seed's coverage is 1."""
        areas = [float(sum_of(mask)) / (self.info.width * self.info.height) for o in self.objects for mask in o.masks]
        return {
            "frames": self.frames,
            "objects": len(self.objects),
            "masks": sum(len(o.masks) for o in self.objects),
            "frames_with_masks": len({frame for o in self.objects for frame in o.frames}),
            "mean_area": round(float(np.mean(areas)), 6) if areas else 0.0,
            "by_phrase": {
                phrase: {
                    "objects": sum(o.phrase == phrase for o in self.objects),
                    "frames": len({frame for o in self.objects if o.phrase == phrase for frame in o.frames}),
                }
                for phrase in self.phrases
            },
        }

    def to_json(self) -> dict:
        """Everything, for a file."""
        return {
            "video": self.video,
            "phrases": self.phrases,
            "width": self.info.width,
            "height": self.info.height,
            "fps": self.info.fps,
            "statistics": self.statistics(),
            "objects": [
                {**vars(o), "color": list(color_of(index)), "boxes": [list(box) for box in o.boxes]}
                for index, o in enumerate(self.objects)
            ],
        }


def sum_of(mask: dict) -> int:
    """Area of an RLE mask in pixels."""
    return int(rle.decode(mask).sum())


class Segmenter:
    """A loaded SAM3, for any number of videos."""

    def __init__(self, backend: ImageSegmenter | VideoSegmenter):
        self.backend = backend

    @classmethod
    def load(cls, params: Sam3Params) -> "Segmenter":
        """Load the model (see `load_segmenter` for errors)."""
        return cls(load_segmenter(params))

    def takes(self, phrase: str) -> bool:
        """Whether SAM3 can be asked for a phrase: it has words, and no more of them than the text encoder takes."""
        try:
            clean_phrases([phrase], self.backend.processor.tokenizer)
        except UserError:
            return False
        return True

    def segment(
        self,
        video: str | Path,
        phrases: Sequence[str],
        max_frames: int | None = None,
        advance: Callable[[], object] = lambda: None,
    ) -> Segmentation:
        """Segment one video, one prompt a phrase.

        Args:
            max_frames: stop after so many frames.
            advance: called once a frame, for progress bars.

        Raises:
            UserError: on a bad video or phrase.
        """
        info = video_info(video)
        objects: dict[int, ObjectTrack] = {}
        count = 0
        for count, seen in enumerate(self.backend.stream(read_frames(video, max_frames), phrases), start=1):
            for one in seen:
                track = objects.setdefault(one.object_id, ObjectTrack(one.object_id, one.phrase))
                track.add(count - 1, one)
            advance()
        return Segmentation(str(video), clean_phrases(phrases), count, info, list(objects.values()))


def painted(result: Segmentation, legend: bool = True):
    """Frames of the video with every object in its colour, uint8 `[H, W, 3]`, one at a time."""
    at: dict[int, list[tuple[int, dict]]] = {}
    for index, track in enumerate(result.objects):
        for frame, mask in zip(track.frames, track.masks, strict=True):
            at.setdefault(frame, []).append((index, mask))
    names = [(f"{track.phrase} {track.object_id}", color_of(i)) for i, track in enumerate(result.objects)]
    for frame, pixels in enumerate(read_frames(result.video, result.frames)):
        masks = [(color_of(index), rle.decode(mask)) for index, mask in at.get(frame, [])]
        yield overlay(pixels, masks, names if legend else [])


def write_outputs(result: Segmentation, folder: str | Path, overlay_frames: bool = False) -> dict:
    """Write `segmentation.json`, `mask_video.mp4` (all objects, legend, the original sound) and, if asked for, a
    folder `frames/` of overlay PNGs; returns the statistics.

    Raises:
        UserError: when the folder cannot be written.
    """
    folder = make_dir(folder)

    def frames():
        for index, pixels in enumerate(painted(result)):
            if overlay_frames:
                with atomic_path(folder / "frames" / f"frame_{index:06d}.png") as path:
                    Image.fromarray(pixels).save(path)
            yield pixels

    write_video(folder / "mask_video.mp4", frames(), result.info.fps, sound_of=result.video)
    write_json(folder / "segmentation.json", result.to_json())
    return result.statistics()
