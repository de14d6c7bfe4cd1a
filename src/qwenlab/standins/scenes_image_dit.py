"""The transformer of the scene stand-in: one tiny `QwenImageTransformer2DModel` that draws and edits.

Half of the steps learn to draw a scene from its prompt, half to edit a picture by an instruction: one cell of the
draft is wrong (another shape, nothing, or a blurred mixture), the rest must stay as it is drawn. Drafts are noisy,
blurred and tinted now and then, because a model's own drafts are not perfect either.
"""

import numpy as np
import torch

from qwenlab.core.image_vae import encode_images, pack_latents, unpack_latents
from qwenlab.core.scene_images import VARIANTS, compose, random_variants, tiles
from qwenlab.core.scene_noise import corrupt, corruptions
from qwenlab.core.scenes import WORLD
from qwenlab.standins.loop import fit
from qwenlab.standins.scenes_image_text import embed, training_edits, training_prompts


def to_latents(vae, images: np.ndarray) -> torch.Tensor:
    """Pictures `[N, H, W, 3]` uint8 -> normalised latents `[N, C, h, w]`."""
    with torch.no_grad():
        return encode_images(vae, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)[:, :, 0]


def velocity(transformer, noisy, sigma, pictures, embeds, mask) -> torch.Tensor:
    """Predicted `noise - x0`, latents `[B, C, h, w]` in and out; sigma `[B]`, `pictures` more latents to look at."""
    height, width = noisy.shape[-2:]
    tokens = torch.cat([pack_latents(x.unsqueeze(2)) for x in (noisy, *pictures)], 1)
    shape = (1, height // 2, width // 2)
    out = transformer(
        hidden_states=tokens,
        timestep=sigma,
        encoder_hidden_states=embeds,
        encoder_hidden_states_mask=None if mask.all() else mask,
        img_shapes=[[shape] * (1 + len(pictures))] * len(noisy),
        return_dict=False,
    )[0]
    return unpack_latents(out[:, : (height // 2) * (width // 2)], height, width)[:, :, 0]


def draft_pictures(
    drawn: np.ndarray, variants: np.ndarray, cell: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Drafts `[N, H, W, 3]` uint8 with the flaws of generated ones: mixtures in the wrong cell, noise, blur, tint."""
    images, side, count = compose(drawn, variants, size), size // WORLD.rows, len(drawn)
    ready = tiles(side, WORLD)
    for i in np.flatnonzero(rng.random(count) < 0.25):
        row, column = divmod(int(cell[i]), WORLD.columns)
        parts = ready[rng.integers(WORLD.items, size=2), rng.integers(len(VARIANTS), size=2)].astype(float)
        share = rng.uniform(0.25, 0.75)
        blend = share * parts[0] + (1 - share) * parts[1]
        images[i, row * side : (row + 1) * side, column * side : (column + 1) * side] = blend.round()
    kinds = [name for name in corruptions() if name in ("blur_1", "noise_10", "tint_10", "blur_1_noise_10_tint_10")]
    which = rng.integers(-len(kinds), len(kinds), count)  # half of them stay clean
    for k, name in enumerate(kinds):
        if (rows := np.flatnonzero(which == k)).size:
            images[rows] = corrupt(images[rows], name, rng)
    return images


def shifted_sigmas(uniform: torch.Tensor, mu: float = 0.5) -> torch.Tensor:
    """The scheduler's exponential time shift of noise levels in (0, 1]."""
    return float(np.exp(mu)) / (float(np.exp(mu)) + 1 / uniform - 1)


def train_transformer(
    draw_pipe, edit_pipe, size: int, steps: int, batch: int, lr: float, edit_share: float, rng: np.random.Generator
) -> float:
    """Flow matching, drawing and editing mixed; returns the last tenth's mean loss."""
    transformer, vae = draw_pipe.transformer, draw_pipe.vae

    def example() -> tuple[torch.Tensor, list[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        if rng.random() >= edit_share:
            texts, scenes = training_prompts(batch, rng)
            return to_latents(vae, compose(scenes, random_variants(scenes, rng), size)), [], embed(draw_pipe, texts)
        texts, drawn, target, cell = training_edits(batch, rng)
        variants = random_variants(target, rng)
        drafts = draft_pictures(drawn, variants, cell, size, rng)
        fresh = variants.copy()
        fresh[np.arange(batch), cell] = rng.integers(len(VARIANTS), size=batch)
        both = to_latents(vae, np.concatenate([compose(target, fresh, size), drafts]))
        return both[:batch], [both[batch:]], embed(edit_pipe, texts, drafts)

    def step_loss(step: int) -> torch.Tensor:
        target, pictures, prompt = example()
        sigma = shifted_sigmas(torch.rand(batch).clamp_min(1e-3))
        noise, s = torch.randn_like(target), sigma.view(-1, 1, 1, 1)
        out = velocity(transformer, (1 - s) * target + s * noise, sigma, pictures, *prompt)
        return (out - (noise - target)).square().mean()

    return fit(transformer.parameters(), step_loss, steps, lr, "transformer", warmup=50)
