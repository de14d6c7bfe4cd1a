"""Read a scene back from the pixels of a picture, without a model: is it what was asked for?

    verify(image, target).all_correct

Every cell is compared with every item drawn at many places and sizes; the nearest template in squared distance wins
(for Gaussian noise that is the likeliest one). A cell that no template explains is UNCLEAR, and so never right. The
checker judges pictures that a model drew, so its own agreement is measured on noisy, blurred, tinted and shifted
renders (`agreement`).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qwenlab.core.scene_images import BACKGROUND, PALETTE, compose, random_variants, shape_mask
from qwenlab.core.scene_noise import corrupt, corruptions
from qwenlab.core.scenes import EMPTY, WORLD, Scene, World, random_scenes

UNCLEAR = -1
_CELL = 16  # cells are compared at this size
_SHIFTS = (-0.24, -0.12, 0.0, 0.12, 0.24)
_RADII = (0.54, 0.64, 0.74)
_BLURS = (0.0, 1.0, 2.0)  # sigma in pixels of a cell of 16: a blurred square is nearer to a sharp circle than to itself
# Both thresholds are about 4x4 block means, in which pixel noise averages out and a shape does not, less their own
# mean, so that a tint does not count. A template must explain EXPLAINED of that variance, or the cell is UNCLEAR; with
# less variance than SILENT it is empty. Chosen on corrupted renders and mixtures of tiles, not on a model's pictures.
EXPLAINED, SILENT = 0.85, 0.0035
_TINT = 0.03  # an empty cell further than this from the background colour is no empty cell: a black picture, say


@dataclass(frozen=True)
class Check:
    """What the checker saw: `score` is the share of cells that are as the target wants them."""

    found: Scene
    score: float

    @property
    def all_correct(self) -> bool:
        return self.score == 1.0


@cache
def _templates(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Differences from the background `[K, cell * cell * 3]` in units of 1, and the item of each `[K]`."""
    from scipy.ndimage import gaussian_filter

    background = np.array(BACKGROUND) / 255
    steps = {c: np.array(PALETTE[c]) / 255 - background for c in world.colours}
    covers = {
        shape: [
            gaussian_filter(cover, blur) if blur else cover
            for radius, x, y in itertools.product(_RADII, _SHIFTS, _SHIFTS)
            for cover in [shape_mask(shape, _CELL, x, y, radius)]
            for blur in _BLURS
        ]
        for shape in world.shapes
    }
    rows, items = [], []
    for item in range(1, world.items):
        colour, shape = world.parts(item)
        rows += [(cover[..., None] * steps[colour]).ravel() for cover in covers[shape]]
        items += [item] * len(covers[shape])
    return np.array(rows, np.float32), np.array(items)


def _cells(images: np.ndarray, world: World) -> np.ndarray:
    """Pictures `[N, H, W, 3]` uint8 cut into cells `[N * cells, 16, 16, 3]` float32 in 0..1 (area average)."""
    from PIL import Image

    width, height = world.columns * _CELL, world.rows * _CELL
    if images.shape[1:3] != (height, width):
        images = np.stack(
            [np.asarray(Image.fromarray(i).resize((width, height), Image.Resampling.BOX)) for i in images]
        )
    grid = images.reshape(-1, world.rows, _CELL, world.columns, _CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(-1, _CELL, _CELL, 3).astype(np.float32) / 255


def read_scenes(images: np.ndarray, world: World = WORLD) -> np.ndarray:
    """What pictures `[N, H, W, 3]` uint8 show: items `[N, cells]`, UNCLEAR where no template fits.

    Raises:
        ValueError: when the array is no batch of RGB pictures.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"pictures of shape {images.shape}, {images.dtype}: expected [N, H, W, 3] uint8.")
    templates, items = _templates(world)
    cells = (_cells(images, world) - np.array(BACKGROUND, np.float32) / 255).reshape(-1, templates.shape[1])
    found = []
    for part in np.array_split(cells, max(1, len(cells) // 2000)):
        best = ((templates**2).sum(1) - 2 * part @ templates.T).argmin(1)  # squared distance, less what all share
        item = items[best]
        seen, rest = _block_variance(part), _block_variance(part - templates[best])
        item = np.where(rest > (1 - EXPLAINED) * seen, UNCLEAR, item)
        found.append(np.where(seen < SILENT, np.where(_mean_square(part) < _TINT, EMPTY, UNCLEAR), item))
    return np.concatenate(found).reshape(len(images), world.cells)


def _blocks(cells: np.ndarray) -> np.ndarray:
    """Means of 4x4 blocks, `[N, 16, 3]`."""
    return cells.reshape(-1, 4, 4, 4, 4, 3).mean((2, 4)).reshape(-1, 16, 3)


def _block_variance(cells: np.ndarray) -> np.ndarray:
    """Variance of block means over a cell, mean over channels."""
    return _blocks(cells).var(1).mean(1)


def _mean_square(cells: np.ndarray) -> np.ndarray:
    """Squared difference of a cell's mean colour from the background."""
    return (_blocks(cells).mean(1) ** 2).mean(1)


def read_scene(image: np.ndarray, world: World = WORLD) -> Scene:
    """What one picture `[H, W, 3]` uint8 shows."""
    return tuple(read_scenes(np.asarray(image)[None], world)[0].tolist())


def verify(image: np.ndarray, target: Sequence[int], world: World = WORLD) -> Check:
    """Compare a picture `[H, W, 3]` uint8 with the scene it shall show."""
    found = read_scene(image, world)
    right = [have == want for have, want in zip(found, target, strict=True)]
    return Check(found, sum(right) / len(right))


def agreement(count: int, seed: int, size: int = 32, world: World = WORLD) -> dict[str, float]:
    """Share of corrupted renders of random scenes whose every cell the checker reads right, by corruption."""
    rng = np.random.default_rng(seed)
    scenes = random_scenes(count, rng, world)
    images = compose(scenes, random_variants(scenes, rng), size, world)
    return {
        name: float((read_scenes(corrupt(images, name, rng), world) == scenes).all(1).mean()) for name in corruptions()
    }
