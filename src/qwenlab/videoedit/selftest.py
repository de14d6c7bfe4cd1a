"""`qwenlab edit --self_test`: every loss has a usable gradient, checked on random tensors without any model."""

import math
from collections.abc import Callable

import torch

from qwenlab.core.edges import laplacian_edges, sobel_edges
from qwenlab.core.errors import UserError
from qwenlab.core.image_vae import pack_latents, unpack_latents
from qwenlab.videoedit.losses import gram_matrix, temporal_loss


def self_test(gram: bool) -> list[str]:
    """Backpropagate through every loss on random tensors, without any model (seed 001, 6.1).

    Args:
        gram: also check that torchvision, which the Gram loss needs, is there.

    Returns:
        one line a check.

    Raises:
        UserError: when a gradient is missing, zero or not finite, or torchvision is missing.
    """
    checks: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "sobel_edges": lambda x: sobel_edges(x).mean(),
        "laplacian_edges": lambda x: laplacian_edges(x).mean(),
        "gram_matrix": lambda x: gram_matrix(x).abs().mean(),
        "temporal_loss": lambda x: temporal_loss(x, torch.zeros_like(x)),
    }
    lines = []
    for name, check in checks.items():
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        norm = torch.autograd.grad(check(images), images)[0].norm().item()
        if not (math.isfinite(norm) and norm > 0):
            raise UserError(f"self test: {name} has no usable gradient (norm {norm}).")
        lines.append(f"{name}: gradient norm {norm:.4g}")
    latents = torch.rand(1, 4, 8, 12)
    if not torch.equal(unpack_latents(pack_latents(latents.unsqueeze(2)), 8, 12)[:, :, 0], latents):
        raise UserError("self test: unpack_latents does not undo pack_latents.")
    lines.append("pack / unpack of latents: exact")
    if gram:
        try:
            import torchvision
        except ImportError as error:
            raise UserError(
                "torchvision is not installed, but --ttlg_gram_scale is above 0: pip install torchvision."
            ) from error
        lines.append(f"torchvision {torchvision.__version__}: available for the Gram loss")
    return lines
