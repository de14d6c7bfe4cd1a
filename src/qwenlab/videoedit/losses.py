"""The losses that guide and score a frame: edges (from core), Gram style, temporal. Seed 001, 4.2, 4.3 and 4.6."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from qwenlab.core.backbones import VGG_LAYERS, normalise, vgg16_trunk

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def resize_to(images: torch.Tensor, side: int | None) -> torch.Tensor:
    """Shrink (area) so that the long side is at most `side` pixels; None or a smaller image passes through."""
    height, width = images.shape[-2:]
    if side is None or max(height, width) <= side:
        return images
    scale = side / max(height, width)
    return F.interpolate(images, (max(1, round(height * scale)), max(1, round(width * scale))), mode="area")


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """Channel correlations. `[B, C, H, W]` -> `[B, C, C]`, divided by C*H*W (Gatys et al., 2016)."""
    batch, channels, height, width = features.shape
    flat = features.reshape(batch, channels, height * width)
    return flat @ flat.transpose(1, 2) / (channels * height * width)


class VGGStyleExtractor(torch.nn.Module):
    """Gram matrices of VGG16 layers (relu1_2, relu2_2, relu3_3, relu4_3), always in float32.

    Args:
        source: weights file of the VGG16 trunk, or "torchvision" (see `core.backbones.vgg16_trunk`).
        size: long side in pixels that pictures are shrunk to first, or None.
    """

    def __init__(self, source: str, size: int | None = None, layers: Sequence[str] = STYLE_LAYERS):
        super().__init__()
        self.indices = [VGG_LAYERS[name] for name in layers]
        self.trunk = vgg16_trunk(source)[: max(self.indices) + 1]
        self.size = size

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """`[B, 3, H, W]` in [0, 1] -> one `[B, C, C]` a layer."""
        hidden, grams = normalise(resize_to(images, self.size)), []
        for index, layer in enumerate(self.trunk):
            hidden = layer(hidden)
            if index in self.indices:
                grams.append(gram_matrix(hidden))
        return grams


def gram_loss(grams: list[torch.Tensor], reference: list[torch.Tensor]) -> torch.Tensor:
    """Sum over layers of the mean absolute difference. The scale depends on the VGG16: near 5 with the HED trunk."""
    return sum(((a - b).abs().mean() for a, b in zip(grams, reference, strict=True)), torch.zeros(()))


def temporal_loss(images: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference to the previous frame, at half size (seed 001, 4.6).

    There is no optical flow in it: a strong weight smears motion.
    """
    return (F.avg_pool2d(images, 2) - F.avg_pool2d(previous, 2)).abs().mean()
