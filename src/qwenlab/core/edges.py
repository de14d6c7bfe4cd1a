"""Differentiable edge maps: the ONE Sobel that data, guidance, metrics and stand-in training share.

Seed 001, 4.1-4.2: Canny has no gradient, so edges are Sobel or Laplacian convolutions. Two traps are avoided:
zero padding draws a frame round every picture (we replicate), and an edge map that is clipped when it is stored
as 8 bits lives in another space than one that is not. Both maps therefore have one fixed gain and one clip at 1.
"""

from typing import Literal

import torch
import torch.nn.functional as F

EdgeKind = Literal["sobel", "laplacian"]

_LUMA = (0.2989, 0.5870, 0.1140)
_SOBEL_X = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
# Nothing clips with a gain of 1 / sqrt(20), the largest Sobel magnitude, but ordinary edges are then nearly black and
# a model can hardly read them. With 1/2 only the hardest edges saturate, on both sides of the loss alike.
GAIN = 0.5
_EPS = 1e-6


def to_gray(images: torch.Tensor) -> torch.Tensor:
    """Luma of RGB images. `[B, 3, H, W]` in [0, 1] -> `[B, 1, H, W]`; one channel passes through."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def sobel_edges(images: torch.Tensor) -> torch.Tensor:
    """Soft edge magnitude. `[B, 3 or 1, H, W]` in [0, 1] -> `[B, 1, H, W]` in [0, 1]."""
    kernel_x = images.new_tensor(_SOBEL_X).view(1, 1, 3, 3)
    kernels = torch.cat([kernel_x, kernel_x.transpose(2, 3)])
    gradients = F.conv2d(F.pad(to_gray(images), (1, 1, 1, 1), mode="replicate"), kernels)
    # sqrt has no gradient at 0: the epsilon keeps flat areas finite, and is taken off again so that flat is 0.
    magnitude = (gradients.square().sum(1, keepdim=True) + _EPS).sqrt() - _EPS**0.5
    return (magnitude * GAIN).clamp(max=1.0)


def laplacian_edges(images: torch.Tensor) -> torch.Tensor:
    """Absolute Laplacian. `[B, 3 or 1, H, W]` in [0, 1] -> `[B, 1, H, W]` in [0, 1]."""
    kernel = images.new_tensor(_LAPLACIAN).view(1, 1, 3, 3)
    response = F.conv2d(F.pad(to_gray(images), (1, 1, 1, 1), mode="replicate"), kernel)
    return (((response.square() + _EPS).sqrt() - _EPS**0.5) * GAIN).clamp(max=1.0)


def edges(images: torch.Tensor, kind: EdgeKind = "sobel") -> torch.Tensor:
    """Edge map of the given kind, `[B, 1, H, W]` in [0, 1]."""
    return sobel_edges(images) if kind == "sobel" else laplacian_edges(images)


def edge_loss(images: torch.Tensor, target: torch.Tensor, kind: EdgeKind = "sobel") -> torch.Tensor:
    """Mean absolute difference between the edges of `images` and `target` (seed 001, 4.2).

    Args:
        images: `[B, 3, H, W]` in [0, 1].
        target: `[B, 1, H, W]`, an edge map made by `edges` with the same kind, at any size.

    The target is resized (area) to the images' size: the same order on both sides, edges first, then the size.
    """
    predicted = edges(images, kind)
    if target.shape[-2:] != predicted.shape[-2:]:
        target = F.interpolate(target, predicted.shape[-2:], mode="area")
    return (predicted - target).abs().mean()
