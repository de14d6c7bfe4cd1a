"""Small pictures for tests."""

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
