"""Pictures of coloured shapes over textures and photographs: what clips, and the scenes SAM3 learns from, are made of.

Shapes are given by signed distances, so that one formula yields the smooth edge of the picture and the exact mask.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwenlab.core.media import read_image
from qwenlab.thinkseg.vocabulary import RGB

SIZE = 64  # pixels, both sides
RADII = {"small": (6.5, 8.5), "large": (10.5, 13.0)}  # pixels; a circle of that radius has about the shape's area
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """One shape in one picture: centre and radius in pixels, angle in radians, colour as floats 0..255."""

    category: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[float, float, float]


def inside(shape: Shape) -> np.ndarray:
    """Signed distance `[SIZE, SIZE]` in pixels to the edge, positive inside."""
    dx, dy = _X + 0.5 - shape.x, _Y + 0.5 - shape.y
    if shape.category == "circle":
        return shape.radius - np.hypot(dx, dy)
    cos, sin = math.cos(shape.angle), math.sin(shape.angle)
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    if shape.category == "square":
        return 0.886 * shape.radius - np.maximum(np.abs(u), np.abs(v))  # half a side, for the area of the circle
    half = 0.72 * shape.radius  # radius of the inscribed circle; the corners reach twice as far
    return half - np.maximum(v, np.maximum(-0.5 * v + 0.866 * u, -0.5 * v - 0.866 * u))


def draw(background: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Paint shapes in order, later ones in front.

    Returns:
        The picture `[SIZE, SIZE, 3]` float32 in 0..255, and the visible part of each shape, bool `[N, SIZE, SIZE]`.
    """
    picture: np.ndarray = background.astype(np.float32)
    masks = np.zeros((len(shapes), SIZE, SIZE), bool)
    for index, shape in enumerate(shapes):
        distance = inside(shape)
        alpha = np.clip(distance + 0.5, 0, 1)[..., None]
        picture = picture * (1 - alpha) + np.asarray(shape.rgb, np.float32) * alpha
        masks[:index] &= distance <= 0
        masks[index] = distance > 0
    return picture, masks


def color_near(color: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """The colour of that name, a little varied in hue and by up to 15% in brightness."""
    rgb = np.asarray(RGB[color]) + rng.uniform(-14, 14, 3)
    red, green, blue = np.clip(rgb * rng.uniform(0.85, 1.1), 0, 255)
    return float(red), float(green), float(blue)


def load_photos(folder: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Photographs by name, uint8 `[H, W, 3]`, the short side reduced to 128 pixels.

    Raises:
        UserError: when one is missing or no picture.
    """
    photos = {}
    for name in names:
        image = read_image(Path(folder) / name)
        scale = 128 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        photos[Path(name).stem] = np.asarray(image)
    return photos


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, stripes or checks in two pale or dark colours; never as saturated as a shape."""
    kind = rng.integers(3)
    if kind == 0:
        cells = int(rng.integers(2, 9))
        coarse = rng.uniform(0, 1, (cells + 1, cells + 1))
        at = np.linspace(0, cells, SIZE, endpoint=False)
        low, part = at.astype(int), (at % 1)[:, None]
        rows = coarse[low] * (1 - part) + coarse[low + 1] * part
        mix = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
    else:
        angle, period = rng.uniform(0, math.pi), rng.uniform(5, 20)
        wave = np.sin((_X * math.cos(angle) + _Y * math.sin(angle)) * 2 * math.pi / period)
        other = np.sin((_Y * math.cos(angle) - _X * math.sin(angle)) * 2 * math.pi / period)
        mix = 0.5 + 0.5 * (wave if kind == 1 else np.sign(wave * other))
    colors = rng.uniform(20, 230, (2, 3))
    colors = colors.mean(1, keepdims=True) + 0.35 * (colors - colors.mean(1, keepdims=True))
    return colors[0] * mix[..., None] + colors[1] * (1 - mix[..., None])


def background(rng: np.random.Generator, photos: Mapping[str, np.ndarray], share: float) -> tuple[str, np.ndarray]:
    """A random background and its name: "texture", or a crop of a photo (a `share` of the time).

    Returns:
        Name, and float32 `[SIZE, SIZE, 3]` in 0..255.
    """
    if not photos or rng.random() >= share:
        return "texture", _texture(rng).astype(np.float32)
    name = sorted(photos)[rng.integers(len(photos))]
    photo = photos[name]
    top, left = (int(rng.integers(0, side - SIZE + 1)) for side in photo.shape[:2])
    crop = photo[top : top + SIZE, left : left + SIZE].astype(np.float32)
    return name, crop[:, ::-1] if rng.random() < 0.5 else crop
