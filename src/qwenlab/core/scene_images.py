"""Pictures of scenes: `render` draws one, `compose` puts any number together from ready tiles, by index.

A cell of `cell` pixels shows its shape in one of a few variants (place and size vary a little). A picture is tiles
side by side, so that training data is unlimited and costs an index operation: at 32 px, 2x2 cells of 16 px fit a
vision tower with patches of 8 and merge 2, one token a cell.
"""

from functools import cache

import numpy as np

from qwenlab.core.scenes import EMPTY, WORLD, Scene, World

PALETTE = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (244, 200, 36),
    "purple": (140, 60, 180),
    "orange": (240, 130, 40),
    "black": (40, 40, 40),
    "cyan": (40, 190, 200),
}
BACKGROUND = (235, 235, 235)
# (x, y, radius) of a shape in a cell of side 2 with its middle at 0: the first is the plain one.
VARIANTS = (
    (0.0, 0.0, 0.66), (0.12, 0.06, 0.6), (-0.12, 0.1, 0.6), (0.08, -0.12, 0.62), (-0.06, -0.1, 0.7), (0.0, 0.0, 0.76),
)  # fmt: skip
_OVERSAMPLE = 8


def shape_mask(shape: str, cell: int, x: float = 0.0, y: float = 0.0, radius: float = 0.66) -> np.ndarray:
    """Cover `[cell, cell]` in 0..1 of a shape; soft at its edge (8x8 samples a pixel).

    Raises:
        ValueError: on an unknown shape.
    """
    n = cell * _OVERSAMPLE
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    u, v = (axis[None] - x) / radius, (axis[:, None] - y) / radius
    if shape == "circle":
        inside = u**2 + v**2 <= 1
    elif shape == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 0.88
    elif shape == "triangle":
        inside = (v <= 0.85) & (np.abs(u) <= (v + 1) * 0.55)
    elif shape == "diamond":
        inside = np.abs(u) + np.abs(v) <= 1.1
    else:
        raise ValueError(f"there is no shape {shape!r}.")
    return inside.reshape(cell, _OVERSAMPLE, cell, _OVERSAMPLE).mean((1, 3))


@cache
def tiles(cell: int, world: World = WORLD) -> np.ndarray:
    """Every item in every variant, `[items, variants, cell, cell, 3]` uint8; do not write into it."""
    background = np.array(BACKGROUND, float)
    out = np.tile(background, (world.items, len(VARIANTS), cell, cell, 1))
    for item in range(1, world.items):
        colour, shape = world.parts(item)
        for v, (x, y, radius) in enumerate(VARIANTS):
            cover = shape_mask(shape, cell, x, y, radius)[..., None]
            out[item, v] = background + cover * (np.array(PALETTE[colour], float) - background)
    return out.round().astype(np.uint8)


def cell_size(size: int, world: World = WORLD) -> int:
    """Pixels of a cell in a picture with a short side of `size`.

    Raises:
        ValueError: when the cells do not fit exactly.
    """
    side = min(world.rows, world.columns)
    if size % side or size // side < 8:
        raise ValueError(f"{size} px: expected a multiple of {side} with at least 8 px a cell.")
    return size // side


def compose(scenes: np.ndarray, variants: np.ndarray, size: int, world: World = WORLD) -> np.ndarray:
    """Pictures `[N, H, W, 3]` uint8 of scenes `[N, cells]`, each cell in its variant `[N, cells]`."""
    cell = cell_size(size, world)
    parts = tiles(cell, world)[scenes, variants]  # [N, cells, cell, cell, 3]
    grid = parts.reshape(-1, world.rows, world.columns, cell, cell, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(-1, world.rows * cell, world.columns * cell, 3))


def random_variants(scenes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A variant for every cell, `[N, cells]`."""
    return rng.integers(len(VARIANTS), size=scenes.shape)


def render(scene: Scene, size: int = 32, world: World = WORLD, variants: Scene | None = None) -> np.ndarray:
    """One picture `[H, W, 3]` uint8; the plain variant unless others are named."""
    chosen = np.zeros(world.cells, int) if variants is None else np.asarray(variants)
    return compose(np.asarray(scene)[None], chosen[None], size, world)[0]


def masks(scene: Scene, size: int = 32, world: World = WORLD, variants: Scene | None = None) -> dict[int, np.ndarray]:
    """Cell -> mask `[H, W]` bool of the shape in it, for the cells that hold one."""
    cell, found = cell_size(size, world), {}
    for index, item in enumerate(scene):
        if item != EMPTY:
            row, column = divmod(index, world.columns)
            where = np.zeros((world.rows * cell, world.columns * cell), bool)
            cover = shape_mask(world.parts(item)[1], cell, *VARIANTS[variants[index] if variants else 0])
            where[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = cover >= 0.5
            found[index] = where
    return found
