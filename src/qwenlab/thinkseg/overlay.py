"""Masks over frames: distinct colours, outlines, and a legend below the picture."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

Color = tuple[int, int, int]
LEGEND_WIDTH = 320  # pixels; a smaller video is enlarged, so that its legend can be read


def color_of(index: int) -> Color:
    """The colour of the index-th object: hues a golden angle apart, so that neighbours differ most."""
    saturation, value = ((0.65, 1.0), (0.95, 1.0), (0.85, 0.75))[index % 3]
    red, green, blue = colorsys.hsv_to_rgb((0.33 + 0.381966 * index) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def paint(pixels: np.ndarray, masks: Sequence[tuple[Color, np.ndarray]], scale: int = 1) -> np.ndarray:
    """Frame uint8 `[H, W, 3]`, enlarged `scale` times, with half-transparent masks and full outlines."""
    picture = pixels.repeat(scale, 0).repeat(scale, 1).astype(np.float32)
    for color, mask in masks:
        large = mask.repeat(scale, 0).repeat(scale, 1)
        picture[large] = 0.5 * picture[large] + 0.5 * np.asarray(color, np.float32)
        picture[large & ~binary_erosion(large, iterations=max(1, scale // 2))] = color
    return picture.astype(np.uint8)


def overlay(
    pixels: np.ndarray, masks: Sequence[tuple[Color, np.ndarray]], names: Sequence[tuple[str, Color]]
) -> np.ndarray:
    """A frame of the mask video: the painted frame and, below it, a line an object (two columns).

    Returns:
        uint8 `[H', W', 3]`; the size depends on the video and the number of names only.
    """
    scale = max(1, -(-LEGEND_WIDTH // pixels.shape[1])) if names else 1
    picture = paint(pixels, masks, scale)
    if not names:
        return picture
    size = max(12, picture.shape[1] // 28)
    line, width = round(1.5 * size), picture.shape[1]
    strip = Image.new("RGB", (width, line * -(-len(names) // 2) + size // 2), (24, 24, 24))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size)
    for index, (name, color) in enumerate(names):
        left, top = (index % 2) * width // 2 + size // 2, (index // 2) * line + size // 3
        draw.rectangle([left, top, left + size, top + size], fill=color)
        draw.text((left + 1.5 * size, top - size // 6), name, fill=(240, 240, 240), font=font)
    return np.concatenate([picture, np.asarray(strip)])
