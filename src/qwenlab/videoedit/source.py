"""Where a run's frames come from: the two input modes of seed 001, 2.1, checked before any model is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from qwenlab.core.edges import EdgeKind, edges
from qwenlab.core.errors import UserError
from qwenlab.core.media import list_frames, read_image, read_video, to_image, to_tensor, video_length

RESIZE = {"nearest": Image.Resampling.NEAREST, "area": Image.Resampling.BOX}


@dataclass(frozen=True)
class Source:
    """A first frame and a sequence of edge pictures, from folders or from videos.

    Give `init_frame` and `edge_frames_dir`, or `rgb_video` and perhaps `edge_video`; without an edge video the edges
    are computed from the frames of `rgb_video` after the first.
    """

    init_frame: Path | None = None
    edge_frames_dir: Path | None = None
    rgb_video: Path | None = None
    edge_video: Path | None = None
    edge_kind: EdgeKind = "sobel"
    edge_resize: str = "area"
    max_frames: int | None = None

    def first(self) -> Image.Image:
        """The first frame, RGB."""
        if self.init_frame is not None:
            return read_image(self.init_frame)
        assert self.rgb_video is not None
        return next(iter(read_video(self.rgb_video, count=1)))

    def check(self) -> int:
        """Validate the inputs and return the number of output frames, the first included.

        Raises:
            UserError: wrong combination of inputs, no or too few edges, edges longer than the video, mixed sizes.
        """
        frames_mode = self.init_frame is not None or self.edge_frames_dir is not None
        if frames_mode == (self.rgb_video is not None) or (self.edge_video is not None and self.rgb_video is None):
            raise UserError(
                "give either --init_frame with --edge_frames_dir, or --rgb_video (with --edge_video, or without it "
                "to derive the edges); not both, not parts of each."
            )
        if frames_mode and (self.init_frame is None or self.edge_frames_dir is None):
            raise UserError("--init_frame and --edge_frames_dir belong together: one of them is missing.")
        if self.max_frames is not None and self.max_frames < 2:
            raise UserError(f"--max_frames is {self.max_frames}; at least 2 is needed (the first frame and one more).")
        where, available = self._count()
        if available == 0:
            raise UserError(f"{where}: no edge frames; at least 1 is needed.")
        if self.max_frames is None:
            return available + 1
        if available < self.max_frames - 1:
            raise UserError(
                f"{where}: holds {available} edge frames, but --max_frames {self.max_frames} needs "
                f"{self.max_frames - 1} (every frame but the first)."
            )
        return self.max_frames

    def _count(self) -> tuple[Path, int]:
        if self.edge_frames_dir is not None:
            paths = list_frames(self.edge_frames_dir)
            first = read_image(paths[0]).size
            for path in paths[1:]:
                if (size := read_image(path).size) != first:
                    raise UserError(
                        f"{path}: is {size[0]}x{size[1]}, but {paths[0].name} is {first[0]}x{first[1]}; "
                        "all edge frames must have one size."
                    )
            return self.edge_frames_dir, len(paths)
        assert self.rgb_video is not None
        frames = video_length(self.rgb_video)
        if self.edge_video is None:
            return self.rgb_video, frames - 1
        count = video_length(self.edge_video)
        if count > frames - 1:
            raise UserError(
                f"{self.edge_video}: has {count} frames, more than the {frames - 1} that {self.rgb_video} has after "
                "its first; edge frame 0 belongs to video frame 1."
            )
        return self.edge_video, count

    def edge_pictures(self, size: tuple[int, int], skip: int, total: int) -> Iterator[Image.Image]:
        """Edge pictures (RGB, at `size`) for output frames `skip + 1` to `total - 1`, read one at a time."""
        wanted = total - 1 - skip
        if self.edge_frames_dir is not None:
            pictures: Iterator[Image.Image] = map(read_image, list_frames(self.edge_frames_dir)[skip : skip + wanted])
        elif self.edge_video is not None:
            pictures = read_video(self.edge_video, start=skip)
        else:
            assert self.rgb_video is not None
            frames = read_video(self.rgb_video, start=skip + 1)
            pictures = (edge_picture(_fit(frame, size, "area"), self.edge_kind) for frame in frames)
        for picture in islice(pictures, wanted):
            yield _fit(picture, size, self.edge_resize)


def _fit(image: Image.Image, size: tuple[int, int], how: str) -> Image.Image:
    return image if image.size == size else image.resize(size, RESIZE[how])


def edge_picture(frame: Image.Image, kind: EdgeKind = "sobel") -> Image.Image:
    """The edge map of a frame as an 8-bit RGB picture (three equal channels)."""
    return to_image(edges(to_tensor(frame), kind))
