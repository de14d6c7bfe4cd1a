"""Scenes that the SAM3 stand-in learns from: pictures of shapes, prompts that are there, and prompts that are not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from qwenlab.thinkseg.drawing import SIZE, Shape, background, color_near, draw, inside
from qwenlab.thinkseg.vocabulary import COLORS, PHRASES, SHAPES

PATCH = 8  # pixels; a patch belongs to the shape that covers most of it, if that is a quarter
MEAN = STD = 127.5  # what the image processor subtracts and divides by


@dataclass(eq=False)
class Scenes:
    """A batch. `pixels` float32 `[B, 3, 64, 64]`, normalised; per scene: `masks` float `[N, 64, 64]`, `boxes`
    `[N, 4]` (cxcywh in 0..1) and `looks` `[N]`, the number of its phrase in `PHRASES`."""

    pixels: torch.Tensor
    masks: list[torch.Tensor]
    boxes: list[torch.Tensor]
    looks: list[torch.Tensor]


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Boxes cxcywh in 0..1, float32 `[N, 4]`, round the true pixels of `[N, H, W]` masks, none of them empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for index, mask in enumerate(masks):
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        low, high = np.array([xs[0], ys[0]]), np.array([xs[-1], ys[-1]]) + 1
        boxes[index] = [*(low + high) / 2, *(high - low)]
    return boxes / masks.shape[-1] if len(masks) else boxes


def as_coded(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a video codec leaves of a picture: half the resolution of colour, and noise."""
    if rng.random() < 0.7:
        grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
        color = picture - grey[..., None]
        coarse = color.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
        picture = grey[..., None] + coarse.repeat(2, 0).repeat(2, 1)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255)


def scene(rng: np.random.Generator, photos: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture `[64, 64, 3]`, its visible masks `[N, 64, 64]` (1 to 5) and the numbers of their phrases `[N]`.

    In two scenes of five shapes may hide up to two thirds of each other. One shape in five repeats the look of
    another; half share their colour or their shape with another, because those are hard to tell apart.
    """
    _, picture = background(rng, photos, 0.5)
    visible_part = 1 / 3 if rng.random() < 0.4 else 0.95
    shapes: list[Shape] = []
    looks: list[int] = []
    masks = np.zeros((0, SIZE, SIZE), bool)
    drawn = picture
    for _ in range(int(rng.integers(1, 6))):
        color, kind = int(rng.integers(len(COLORS))), int(rng.integers(len(SHAPES)))
        if looks and (chance := rng.random()) < 0.7:
            like = looks[rng.integers(len(looks))]
            color = like // len(SHAPES) if chance < 0.45 else color
            kind = like % len(SHAPES) if chance < 0.2 or chance >= 0.45 else kind
        rgb = color_near(COLORS[color], rng)
        for _ in range(6):
            radius = rng.uniform(5.5, 13.5)
            x, y = rng.uniform(0.8 * radius, SIZE - 0.8 * radius, 2)
            new = Shape(SHAPES[kind], x, y, radius, rng.uniform(-0.3, 0.3), rgb)
            candidate, visible = draw(picture, [*shapes, new])
            areas = np.array([(inside(shape) > 0).sum() for shape in [*shapes, new]])
            if (visible.sum((1, 2)) >= visible_part * areas).all():
                shapes, drawn, masks = [*shapes, new], candidate, visible
                looks.append(color * len(SHAPES) + kind)
                break
    return as_coded(drawn, rng), masks, np.array(looks)


def batch(rng: np.random.Generator, photos: Mapping[str, np.ndarray], count: int) -> Scenes:
    """`count` scenes."""
    drawn = [scene(rng, photos) for _ in range(count)]
    pixels = np.stack([picture for picture, _, _ in drawn]).astype(np.float32)
    return Scenes(
        (torch.from_numpy(pixels).permute(0, 3, 1, 2) - MEAN) / STD,
        [torch.from_numpy(masks).float() for _, masks, _ in drawn],
        [torch.from_numpy(boxes_of(masks)) for _, masks, _ in drawn],
        [torch.from_numpy(looks) for _, _, looks in drawn],
    )


def prompts(rng: np.random.Generator, looks: torch.Tensor, count: int, present: float) -> list[int]:
    """Numbers of `count` phrases for a scene: a share of them `present`, the others mostly near misses."""
    there, chosen = sorted(set(looks.tolist())), []
    for _ in range(count):
        if rng.random() < present:
            chosen.append(there[rng.integers(len(there))])
            continue
        chosen.append(absent(rng, there))
    return chosen


def absent(rng: np.random.Generator, there: list[int]) -> int:
    """A phrase that fits nothing: usually the colour of something that is there, or else its shape."""
    kinds = len(SHAPES)
    like, chance = there[rng.integers(len(there))], rng.random()
    color, kind = like // kinds, like % kinds
    near = [color * kinds + other for other in range(kinds)] if chance < 0.6 else list(range(kind, len(PHRASES), kinds))
    choices = [look for look in near if look not in there] if chance < 0.85 else []
    choices = choices or [look for look in range(len(PHRASES)) if look not in there]
    return choices[rng.integers(len(choices))]


def patch_targets(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor]:
    """Per patch, the index of its shape in its scene (-1: none), `[B, 64]`, and that shape's box `[B, 64, 4]`."""
    index, boxes = [], []
    for masks, own in zip(scenes.masks, scenes.boxes, strict=True):
        cover = torch.nn.functional.avg_pool2d(masks[None], PATCH)[0].flatten(1)  # [N, 64]
        most, which = cover.max(0)
        index.append(torch.where(most >= 0.25, which, -1))
        boxes.append(own[which])
    return torch.stack(index), torch.stack(boxes)
