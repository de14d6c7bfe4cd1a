"""Read a scene back from the pixels of a picture, without a model: is it what was asked for?

    verify(image, target).all_correct

Every cell is compared with every item drawn at many places and sizes; the nearest template in squared distance wins
(for Gaussian noise that is the likeliest one). A cell that no template explains is UNCLEAR, and so never right. The
checker judges pictures that a model drew, so its own agreement is measured on noisy, blurred, tinted and shifted
renders (`agreement`).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qwenlab.core.scene_images import BACKGROUND, PALETTE, compose, random_variants, shape_mask
from qwenlab.core.scenes import EMPTY, WORLD, Scene, World, random_scenes

UNCLEAR = -1
_CELL = 16  # cells are compared at this size
_SHIFTS = (-0.24, -0.12, 0.0, 0.12, 0.24)
_RADII = (0.54, 0.64, 0.74)
_BLURS = (0.0, 1.0, 2.0)  # sigma in pixels of a cell of 16: a blurred square is nearer to a sharp circle than to itself
# A shape must explain this share of what differs from the background, and a cell counts as empty below this mean
# squared difference from the background (colours in 0..1). Chosen on corrupted renders, not on a model's pictures.
EXPLAINED, SILENT = 0.5, 0.012


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
        energy = (part**2).sum(1)
        left = energy[:, None] - 2 * part @ templates.T + (templates**2).sum(1)  # squared distance to each template
        best = left.argmin(1)
        item = items[best]
        distance = left[np.arange(len(part)), best]
        item = np.where(distance > (1 - EXPLAINED) * energy, UNCLEAR, item)
        # An empty cell has no shape to explain: little energy, or only noise, which no template explains.
        smooth = _smooth_energy(part)
        item = np.where((smooth < SILENT) & (energy <= distance * 1.25), EMPTY, item)
        found.append(item)
    return np.concatenate(found).reshape(len(images), world.cells)


def _smooth_energy(cells: np.ndarray) -> np.ndarray:
    """Mean square of 4x4 block means: pixel noise averages out, a shape does not."""
    blocks = cells.reshape(-1, 4, 4, 4, 4, 3).mean((2, 4))
    return (blocks**2).mean((1, 2, 3))


def read_scene(image: np.ndarray, world: World = WORLD) -> Scene:
    """What one picture `[H, W, 3]` uint8 shows."""
    return tuple(read_scenes(np.asarray(image)[None], world)[0].tolist())


def verify(image: np.ndarray, target: Sequence[int], world: World = WORLD) -> Check:
    """Compare a picture `[H, W, 3]` uint8 with the scene it shall show."""
    found = read_scene(image, world)
    right = [have == want for have, want in zip(found, target, strict=True)]
    return Check(found, sum(right) / len(right))


Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _noise(amount: float) -> Corruption:
    return lambda images, rng: images + rng.normal(0, 255 * amount, images.shape)


def _blur(sigma: float) -> Corruption:
    from scipy.ndimage import gaussian_filter

    return lambda images, rng: gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def _shift(pixels: int) -> Corruption:
    def run(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        offsets = rng.integers(-pixels, pixels + 1, (len(images), 2))
        return np.stack([np.roll(i, tuple(o), (0, 1)) for i, o in zip(images, offsets, strict=True)])

    return run


def _tint(amount: float) -> Corruption:
    return lambda images, rng: images * rng.uniform(1 - amount, 1 + amount, (len(images), 1, 1, 3))


def corruptions() -> Mapping[str, Corruption]:
    """What generated pictures suffer from, by name; strengths for pictures of 32 px."""
    return {
        "none": lambda images, rng: images,
        "noise_10": _noise(0.1),
        "noise_20": _noise(0.2),
        "blur_1": _blur(1.0),
        "blur_2": _blur(2.0),
        "tint_10": _tint(0.1),
        "shift_1": _shift(1),
        "blur_1_noise_10_tint_10": lambda i, rng: _noise(0.1)(_tint(0.1)(_blur(1.0)(i, rng), rng), rng),
    }


def corrupt(images: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Pictures `[N, H, W, 3]` uint8 after the named corruption, uint8 again."""
    return corruptions()[name](images.astype(float), rng).clip(0, 255).round().astype(np.uint8)


def agreement(count: int, seed: int, size: int = 32, world: World = WORLD) -> dict[str, float]:
    """Share of corrupted renders of random scenes whose every cell the checker reads right, by corruption."""
    rng = np.random.default_rng(seed)
    scenes = random_scenes(count, rng, world)
    images = compose(scenes, random_variants(scenes, rng), size, world)
    return {
        name: float((read_scenes(corrupt(images, name, rng), world) == scenes).all(1).mean()) for name in corruptions()
    }
