"""Pictures and video: frame folders, mp4 (PyAV), sizes, conversion to tensors.

Everything becomes 8-bit RGB on the way in, whatever the file holds (grey, alpha, palette, 16 bit), because the
pipelines read nothing else: an `L` or `RGBA` image makes `QwenImageEditPlusPipeline` fail.
"""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def natural_key(path: Path) -> list:
    """Sort key that puts frame_2 before frame_10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def list_frames(folder: str | Path) -> list[Path]:
    """The image files of a folder in natural order.

    Raises:
        UserError: when the folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of frames.")
    frames = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
    if not frames:
        raise UserError(f"{folder}: holds no image; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return frames


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image as 8-bit RGB: alpha over black, 16-bit and float greys scaled by their range, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        image = Image.fromarray((values.clip(0, top) / top * 255).round().astype(np.uint8), "L")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


def read_image(path: str | Path) -> Image.Image:
    """Read one picture as 8-bit RGB.

    Raises:
        UserError: when the file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}).") from error


def write_image(path: str | Path, image: Image.Image) -> None:
    """Write one picture atomically; the format follows the suffix."""
    with atomic_path(path) as temporary:
        image.save(temporary)


def read_video(path: str | Path, start: int = 0, step: int = 1, count: int | None = None) -> Iterator[Image.Image]:
    """Decode frames `start, start + step, ...` of a video as RGB, one at a time.

    Raises:
        UserError: when the file is missing, no video, or holds no frame.
    """
    import av

    if not Path(path).is_file():
        raise UserError(f"{path}: no such video.")
    yielded = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream.")
            for index, frame in enumerate(container.decode(video=0)):
                if count is not None and yielded >= count:
                    break
                if index >= start and (index - start) % step == 0:
                    yield frame.to_image()
                    yielded += 1
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}).") from error
    if not yielded:
        raise UserError(f"{path}: holds no frame at position {start} or later.")


def video_length(path: str | Path) -> int:
    """Number of frames, counted by decoding packets (containers lie about it)."""
    import av

    if not Path(path).is_file():
        raise UserError(f"{path}: no such video.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream.")
            return sum(1 for _ in container.decode(video=0))
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}).") from error


def write_video(path: str | Path, frames: Iterable[Image.Image], fps: float = 8.0, crf: int = 12) -> int:
    """Write an mp4 (H.264, yuv420p, plays in browsers) atomically; returns the number of frames.

    H.264 needs even sides: an odd last row or column is repeated once, never cropped.
    """
    import av

    count = 0
    stream = None
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        for frame in frames:
            pixels = np.asarray(frame)
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                # One thread: with more, the bits depend on the number of cores of the machine.
                stream.options = {"crf": str(crf), "threads": "1"}
            elif (stream.height, stream.width) != pixels.shape[:2]:
                raise UserError(
                    f"{path}: frame {count} is {pixels.shape[1]}x{pixels.shape[0]}, "
                    f"the first was {stream.width}x{stream.height}; all frames of a video have one size."
                )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
            count += 1
        if stream is None:
            raise UserError(f"{path}: no frames to write.")
        container.mux(stream.encode())
    return count


def center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """Crop to the aspect of width:height around the centre, then resize (area-like) to exactly that size."""
    scale = min(image.width / width, image.height / height)
    crop_w, crop_h = round(width * scale), round(height * scale)
    left, top = (image.width - crop_w) // 2, (image.height - crop_h) // 2
    return image.resize((width, height), Image.Resampling.BOX, (left, top, left + crop_w, top + crop_h))


def to_tensor(image: Image.Image):
    """PIL image -> `[1, C, H, W]` float32 in [0, 1] (C = 1 for grey, 3 for RGB)."""
    import torch

    pixels = np.array(image, dtype=np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255


def to_image(tensor) -> Image.Image:
    """`[1, C, H, W]` or `[C, H, W]` in [0, 1] -> 8-bit RGB picture (rounded, clipped)."""
    pixels = (tensor.detach().reshape(-1, *tensor.shape[-2:]).clamp(0, 1) * 255).round().byte().cpu()
    if pixels.shape[0] == 1:
        pixels = pixels.expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
