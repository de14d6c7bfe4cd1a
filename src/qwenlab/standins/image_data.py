"""Training clips for the image stand-in: short moving sequences from photos, one real clip and painted scenes.

The evaluation clip (Big Buck Bunny) and the tuning clip (carphone) are in none of them.
Frames are drawn at twice the size and averaged down, so that they are as sharp as a downscaled video.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from qwenlab.core.media import read_image, read_video, to_tensor

PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png",
    "china.jpg", "flower.jpg",
)  # fmt: skip
_BIKES_CUTS = (0, 30, 76, 137, 187, 242)  # scenes of bikes.mp4: a pair of frames must not cross a cut


def _shrink(image: torch.Tensor, short_side: int) -> torch.Tensor:
    """`[1, 3, H, W]` resized (antialiased) so that its short side is `short_side`."""
    scale = short_side / min(image.shape[-2:])
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)


class ClipMaker:
    """Draws random clips `[n, 3, H, W]` in [0, 1] with smooth motion; everything follows from the seed."""

    def __init__(self, assets: str | Path, width: int, height: int, seed: int):
        assets = Path(assets)
        self.size, self.rng = (height, width), np.random.default_rng(seed)
        self.photos = [_shrink(to_tensor(read_image(assets / name)), 4 * height) for name in PHOTOS]
        frames = [_shrink(to_tensor(f), 3 * height) for f in read_video(assets / "bikes.mp4")]
        self.scenes = [
            torch.cat(frames[a:b])
            for a, b in zip(_BIKES_CUTS, (*_BIKES_CUTS[1:], len(frames)), strict=True)
            if b > a + 8
        ]

    def _window(self, n: int, extent: float, speed: float) -> torch.Tensor:
        """Affine matrices `[n, 2, 3]` of a drifting, zooming, slightly turning view that stays inside."""
        rng = self.rng
        scale = rng.uniform(0.3, 0.9) * extent * (1 + rng.normal(0, 0.02 * speed) * np.arange(n))
        scale = np.clip(scale, 0.2, 0.95)
        angle = rng.normal(0, 0.15) + rng.normal(0, 0.02 * speed) * np.arange(n)
        room = 1 - scale.max()
        start, drift = rng.uniform(-room, room, 2), rng.normal(0, 0.05 * speed, 2)
        centre = np.clip(start + drift * np.arange(n)[:, None], -room, room)
        mirror = rng.choice([-1.0, 1.0])
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        rows = np.stack(
            [np.stack([cos * mirror, -sin, centre[:, 0]], 1), np.stack([sin * mirror, cos, centre[:, 1]], 1)], 1
        )
        return torch.from_numpy(rows).float()

    def _view(self, images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        grid = F.affine_grid(theta, [len(theta), 3, 2 * height, 2 * width], align_corners=False)
        images = images.expand(len(theta), -1, -1, -1)
        return F.avg_pool2d(F.grid_sample(images, grid, padding_mode="reflection", align_corners=False), 2)

    def _speed(self) -> float:
        """Camera motion: mostly none or little. A tiny model learns to keep what stays before it learns to move it."""
        return float(self.rng.choice([0.0, 0.0, 0.1, 0.3, 1.0]))

    def _some_photo(self) -> torch.Tensor:
        return self.photos[self.rng.integers(len(self.photos))]

    def _photo(self, n: int) -> torch.Tensor:
        return self._view(self._some_photo(), self._window(n, 1.0, self._speed()))

    def _film(self, n: int) -> torch.Tensor:
        scene = self.scenes[self.rng.integers(len(self.scenes))]
        step = int(self.rng.integers(1, 4))
        step = max(1, min(step, (len(scene) - 1) // max(n - 1, 1)))
        start = int(self.rng.integers(0, len(scene) - step * (n - 1)))
        frames = scene[start : start + step * n : step][:n]
        frames = frames.flip(0) if self.rng.random() < 0.5 else frames
        return self._view(frames, self._window(n, 1.05, 0.3 * self._speed()))

    def _blobs(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Shaded or textured moving shapes: colours `[n, 3, H, W]` and soft masks `[n, 1, H, W]`, later in front."""
        height, width = self.size
        ys, xs = torch.meshgrid(torch.linspace(-1, 1, 2 * height), torch.linspace(-1.5, 1.5, 2 * width), indexing="ij")
        colour, mask = torch.zeros(n, 3, 2 * height, 2 * width), torch.zeros(n, 1, 2 * height, 2 * width)
        for _ in range(int(self.rng.integers(1, 5))):
            rng = self.rng
            centre, velocity = rng.uniform((-1.2, -0.8), (1.2, 0.8)), rng.normal(0, 0.08, 2)
            radii, turn, spin = rng.uniform(0.12, 0.6, 2), rng.uniform(0, math.pi), rng.normal(0, 0.08)
            power, base, light = rng.choice([1.0, 2.0, 2.0, 6.0]), rng.uniform(0, 1, 3), rng.uniform(-0.4, 0.4, 2)
            texture = self._some_photo() if rng.random() < 0.5 else None
            for k in range(n):
                x, y = xs - float(centre[0] + k * velocity[0]), ys - float(centre[1] + k * velocity[1])
                cos, sin = math.cos(turn + k * spin), math.sin(turn + k * spin)
                u, v = (x * cos + y * sin) / float(radii[0]), (y * cos - x * sin) / float(radii[1])
                inside = torch.sigmoid((1 - (u.abs() ** power + v.abs() ** power)) * 25)
                shade = torch.from_numpy(base).float().view(3, 1, 1) + float(light[0]) * u + float(light[1]) * v
                if texture is not None:  # a piece of a photo that moves with the shape
                    grid = torch.stack([u, v], -1).unsqueeze(0) * 0.4
                    shade = F.grid_sample(texture, grid, padding_mode="reflection", align_corners=False)[0]
                shade = shade.clamp(0, 1)
                colour[k] = colour[k] * (1 - inside) + shade * inside
                mask[k, 0] = mask[k, 0] * (1 - inside) + inside
        return F.avg_pool2d(colour, 2), F.avg_pool2d(mask, 2)

    def clip(self, n: int) -> torch.Tensor:
        """One clip `[n, 3, H, W]` in [0, 1]."""
        kind = self.rng.random()
        frames = self._film(n) if kind < 0.35 else self._photo(n)
        if self.rng.random() < 0.75:
            colour, mask = self._blobs(n)
            frames = frames * (1 - mask) + colour
        gain, shift = self.rng.uniform(0.75, 1.25), self.rng.uniform(-0.1, 0.1)
        tint = torch.from_numpy(self.rng.uniform(0.85, 1.15, (1, 3, 1, 1))).float()
        frames = ((frames - 0.5) * float(gain) + 0.5 + float(shift)) * tint
        if self.rng.random() < 0.3:
            frames = frames[:, torch.from_numpy(self.rng.permutation(3))]
        return frames.clamp(0, 1)
