"""Pictures and video in and out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwenlab.core import media
from qwenlab.core.errors import UserError


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_frames_are_sorted_by_number_not_by_letter(tmp_path: Path):
    for name in ("f10.png", "f2.png", "f1.png"):
        noise(4, 4).save(tmp_path / name)
    assert [p.name for p in media.list_frames(tmp_path)] == ["f1.png", "f2.png", "f10.png"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_every_image_mode_becomes_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    noise(5, 3).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    image = media.read_image(path)
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_a_sixteen_bit_picture_is_scaled_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    pixels = np.asarray(media.read_image(tmp_path / "x.png"))
    assert abs(int(pixels[8, 0, 0]) - 128) <= 1
    assert pixels.max() == 255


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_unreadable_picture_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.png"):
        media.read_image(tmp_path / "bad.png")


def test_a_truncated_picture_is_named(tmp_path: Path):
    noise(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"half\.png"):
        media.read_image(tmp_path / "half.png")


@pytest.mark.parametrize("name", ["text.mp4", "missing.mp4"])
def test_an_unreadable_video_is_named(tmp_path: Path, name: str):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UserError, match=name):
        list(media.read_video(tmp_path / name))


def test_a_video_with_odd_sides_is_padded_and_read_back(tmp_path: Path):
    frames = [media.center_crop(noise(8, 6, k), 33, 17) for k in range(4)]
    assert media.write_video(tmp_path / "v.mp4", frames) == 4
    assert media.video_length(tmp_path / "v.mp4") == 4
    back = list(media.read_video(tmp_path / "v.mp4", start=1, step=2))
    assert [f.size for f in back] == [(34, 18)] * 2
    error = np.abs(np.asarray(back[0], float)[:17, :33] - np.asarray(frames[1], float)).mean()
    assert error < 16


def test_two_writes_of_a_video_are_byte_identical(tmp_path: Path):
    frames = [noise(32, 16, k) for k in range(3)]
    media.write_video(tmp_path / "a.mp4", frames)
    media.write_video(tmp_path / "b.mp4", frames)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_video_of_mixed_sizes_is_refused_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(UserError, match="frame 1 is 8x8"):
        media.write_video(tmp_path / "v.mp4", [noise(16, 16), noise(8, 8)])
    assert list(tmp_path.iterdir()) == []


def test_tensor_and_picture_round_trip_exactly():
    image = noise(7, 5)
    assert media.to_image(media.to_tensor(image)).tobytes() == image.tobytes()


def test_a_centre_crop_keeps_the_aspect(tmp_path: Path):
    wide = Image.new("RGB", (300, 100))
    wide.paste((255, 0, 0), (100, 0, 200, 100))
    cropped = np.asarray(media.center_crop(wide, 10, 10))
    assert (cropped == (255, 0, 0)).all()
