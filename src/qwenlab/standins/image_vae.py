"""The autoencoder of the image stand-in: a tiny `AutoencoderKLQwenImage`, trained on single frames."""

from typing import Any

import torch

from qwenlab.core.backbones import normalise, squeezenet
from qwenlab.core.edges import sobel_edges
from qwenlab.core.image_vae import enable_image_mode
from qwenlab.standins.image_data import ClipMaker
from qwenlab.standins.loop import fit


def build_vae(base_dim: int, z_dim: int):
    """An untrained `AutoencoderKLQwenImage` that shrinks each side by 4.

    `z_dim` must not be 1, 3 or 4: the pipeline takes an image with z_dim channels for latents.
    """
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(
        base_dim=base_dim,
        z_dim=z_dim,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, False],
        latents_mean=[0.0] * z_dim,
        latents_std=[1.0] * z_dim,
    )
    # Single frames train the last temporal tap only. Zeroing the others makes a multi-frame decode the same as
    # decoding frame by frame, instead of noise.
    for module in vae.modules():
        if type(module).__name__ == "QwenImageCausalConv3d" and module.weight.shape[2] > 1:
            module.weight.data[:, :, :-1] = 0
            module.weight.data[:, :, -1] *= module.weight.shape[2] ** 0.5
        if type(module).__name__ == "QwenImageResidualBlock":
            torch.nn.init.zeros_(module.conv2.weight)  # residual blocks start as identities
    return enable_image_mode(vae)


def _features(trunk: torch.nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    hidden, found = normalise(images), []
    for index, layer in enumerate(trunk[:8]):
        hidden = layer(hidden)
        if index in (1, 4, 7):
            found.append(torch.nn.functional.normalize(hidden, dim=1))
    return found


def train_vae(
    vae, clips: ClipMaker, pairs: int, steps: int, batch: int, lr: float, latent_noise: float, squeezenet_file
) -> float:
    """Encoder and decoder together: L1, Sobel, a light SqueezeNet feature loss, a light KL term.

    A heavy edge loss makes greyish pictures, hence the small weights. The decoder sees latents with noise
    (`latent_noise`, their own standard deviation is about 1), because the transformer's latents are not perfect
    either: without it their errors turn into coloured speckles.
    """
    trunk: Any = squeezenet(squeezenet_file).features
    pool = torch.cat([clips.clip(2) for _ in range(pairs)])

    def step_loss(step: int) -> torch.Tensor:
        images = pool[torch.randint(len(pool), (batch,))]
        posterior = vae.encode((images * 2 - 1).unsqueeze(2)).latent_dist
        mean, logvar = posterior.mean, posterior.logvar
        latents = mean + torch.randn_like(mean) * ((0.5 * logvar).exp() + latent_noise)
        out = vae.decoder(vae.post_quant_conv(latents))[:, :, 0] / 2 + 0.5
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        edge = (sobel_edges(out) - sobel_edges(images)).abs().mean()
        perceptual = sum(
            (a - b).square().mean() * a.shape[1] ** 0.5
            for a, b in zip(_features(trunk, out), _features(trunk, images), strict=True)
        )
        error = out - images
        return error.abs().mean() + 2 * error.square().mean() + 0.25 * edge + 0.02 * perceptual + 2e-4 * kl

    return fit(vae.parameters(), step_loss, steps, lr, "autoencoder")


@torch.no_grad()
def set_latent_stats(vae, clips: ClipMaker, n: int = 300) -> None:
    """Measure mean and standard deviation of the latents per channel and write them into the config."""
    images = torch.cat([clips.clip(1) for _ in range(n)])
    latents = torch.cat([vae.encode((b * 2 - 1).unsqueeze(2)).latent_dist.mode() for b in images.split(50)])
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in latents.mean((0, 2, 3, 4)).tolist()],
        latents_std=[round(v, 4) for v in latents.std((0, 2, 3, 4)).tolist()],
    )


@torch.no_grad()
def psnr(vae, frames: torch.Tensor) -> float:
    """Mean PSNR (dB) of encoding and decoding `frames` `[N, 3, H, W]` in [0, 1]."""
    latents = vae.encode((frames * 2 - 1).unsqueeze(2)).latent_dist.mode()
    out = (vae.decoder(vae.post_quant_conv(latents))[:, :, 0] / 2 + 0.5).clamp(0, 1)
    return (-10 * (out - frames).square().mean((1, 2, 3)).log10()).mean().item()
