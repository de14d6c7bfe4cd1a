"""What pictures that a model drew suffer from: noise, blur, tint, a shift. Strengths suit pictures of 32 px."""

from collections.abc import Callable, Mapping

import numpy as np

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
