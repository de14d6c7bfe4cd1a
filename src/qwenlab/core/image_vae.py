"""Exact image-mode for `AutoencoderKLQwenImage`, and its latents in the forms the pipelines use.

The Qwen-Image autoencoder is a causal VIDEO autoencoder. For a single frame every causal 3-D convolution sees
zeros before it, so only its last temporal tap counts: it equals a 2-D convolution. Running it as one is exact and
several times faster, forward and backward, which is what makes guidance through the decoder affordable.
"""

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def _conv2d_forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    """`QwenImageCausalConv3d.forward` for one frame without history; anything else takes the stock path."""
    if x.shape[2] != 1 or cache_x is not None or self.stride[0] != 1:
        return type(self).forward(self, x, cache_x)
    out = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, self.stride[1:], (self._padding[2], self._padding[0]))
    return out.unsqueeze(2)


def enable_image_mode(vae: nn.Module) -> nn.Module:
    """Let every causal convolution of `vae` run as 2-D on single frames (in place; videos still work).

    Exact up to rounding: the same products are summed in another order.
    """
    for module in vae.modules():
        if type(module).__name__ == "QwenImageCausalConv3d":
            module.forward = types.MethodType(_conv2d_forward, module)
    return vae


def disable_image_mode(vae: nn.Module) -> nn.Module:
    """Undo `enable_image_mode`."""
    for module in vae.modules():
        if type(module).__name__ == "QwenImageCausalConv3d":
            module.__dict__.pop("forward", None)
    return vae


def latent_stats(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(mean, std)`, each `[1, C, 1, 1, 1]`, that pipelines normalise latents with."""
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=like.device, dtype=like.dtype).view(shape)
    std = torch.tensor(vae.config.latents_std, device=like.device, dtype=like.dtype).view(shape)
    return mean, std


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """`[B, 3, H, W]` in [0, 1] -> normalised latents `[B, C, 1, h, w]` (the mode, as the pipelines take it)."""
    latents = vae.encode((images * 2 - 1).unsqueeze(2)).latent_dist.mode()
    mean, std = latent_stats(vae, latents)
    return (latents - mean) / std


def decode_latents(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents `[B, C, 1, h, w]` -> images `[B, 3, H, W]` around [0, 1], NOT clamped.

    `vae.decode` clamps, and a saturated pixel then has no gradient: guidance could never pull it back.
    So this calls the decoder itself; without a feature cache that is the same computation for one frame.
    """
    mean, std = latent_stats(vae, latents)
    hidden = vae.post_quant_conv((latents * std + mean).to(vae.dtype))
    return vae.decoder(hidden)[:, :, 0] / 2 + 0.5


def pack_latents(latents: torch.Tensor) -> torch.Tensor:
    """`[B, C, 1, h, w]` -> `[B, (h/2)(w/2), 4C]`, as the transformer reads them."""
    batch, channels, _, height, width = latents.shape
    latents = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return latents.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack_latents(packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Inverse of `pack_latents`; `height` and `width` are those of the latents (h, w)."""
    batch, _, channels = packed.shape
    latents = packed.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, channels // 4, 1, height, width)
