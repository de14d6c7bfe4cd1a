"""Make the scene stand-in: a tiny Qwen-Image that draws and edits scenes. Run: dvc repro -f -s standin-scenes_image"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from qwenlab.core.image_conditioning import template_length
from qwenlab.core.image_vae import latent_stats
from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.scene_checker import read_scenes
from qwenlab.core.scene_images import compose, random_variants, render
from qwenlab.core.scene_prompts import KINDS, random_prompt
from qwenlab.core.scenes import random_scenes
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins import scenes_image_dit as dit
from qwenlab.standins import scenes_image_text as text
from qwenlab.standins.image_dit import build_transformer
from qwenlab.standins.image_vae import build_vae, psnr
from qwenlab.standins.loop import fit

# The scheduler settings of Qwen/Qwen-Image.
SCHEDULER = {
    "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 8192, "max_shift": 0.9,
    "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.02, "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}  # fmt: skip


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    size: int
    base_dim: int
    z_dim: int
    layers: int
    heads: int
    text_dim: int
    text_layers: int
    vocab: int
    vae_steps: int
    vae_batch: int
    vae_lr: float
    latent_noise: float
    polish_steps: int
    polish_noise: float
    text_steps: int
    text_batch: int
    text_lr: float
    steps: int
    batch: int
    lr: float
    edit_share: float


def build_pipelines(recipe: Recipe):
    """Untrained `QwenImagePipeline` and `QwenImageEditPlusPipeline` that share every component."""
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline, QwenImagePipeline
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    rng = np.random.default_rng(recipe.seed)
    words = [random_prompt(kind, rng).text for kind in KINDS for _ in range(60)] + text.training_edits(300, rng)[0]
    templates = [pipeline_template(cls) for cls in (QwenImagePipeline, QwenImageEditPlusPipeline)]
    tokenizer = train_tokenizer([*templates * 20, text.PICTURE, *words], recipe.vocab)
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    hidden = recipe.text_dim
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": hidden // 16,
            "num_key_value_heads": hidden // 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "initializer_range": 0.06,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "patch_size": text.PATCH,
            "spatial_merge_size": text.MERGE,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    size = {"shortest_edge": recipe.size**2, "longest_edge": recipe.size**2}
    shape = {"patch_size": text.PATCH, "merge_size": text.MERGE, "size": size}
    parts = {
        "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        "vae": build_vae(recipe.base_dim, recipe.z_dim),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config).eval(),
        "tokenizer": tokenizer,
        "transformer": build_transformer(recipe.z_dim, recipe.layers, recipe.heads, hidden),
    }
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        video_processor=Qwen2VLVideoProcessor(**shape),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    draw_pipe, edit_pipe = QwenImagePipeline(**parts), QwenImageEditPlusPipeline(**parts, processor=processor)
    for pipe in (draw_pipe, edit_pipe):
        pipe.prompt_template_encode_start_idx = template_length(pipe)
        pipe.set_progress_bar_config(disable=True)
    return draw_pipe, edit_pipe


def pipeline_template(cls) -> str:
    """The prompt template of a pipeline class, which only its instances know."""
    import inspect
    import re

    found = re.search(r'prompt_template_encode = "(.+?)"\n', inspect.getsource(cls.__init__))
    if found is None:
        raise RuntimeError(f"{cls.__name__}: its source has no prompt_template_encode.")
    return found[1].encode().decode("unicode_escape")


def random_pictures(count: int, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Training renders `[count, 3, H, W]` in 0..1; some noisy and blurred, for drafts are."""
    scenes = random_scenes(count, rng)
    images = dit.draft_pictures(
        scenes, random_variants(scenes, rng), rng.integers(scenes.shape[1], size=count), size, rng
    )
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def train_vae(vae, recipe: Recipe, rng: np.random.Generator) -> None:
    """Encoder and decoder together on renders; then mean and deviation of the latents go into the config."""

    def step_loss(step: int) -> torch.Tensor:
        images = random_pictures(recipe.vae_batch, recipe.size, rng)
        posterior = vae.encode((images * 2 - 1).unsqueeze(2)).latent_dist
        mean, logvar = posterior.mean, posterior.logvar
        latents = mean + torch.randn_like(mean) * ((0.5 * logvar).exp() + recipe.latent_noise)
        out = vae.decoder(vae.post_quant_conv(latents))[:, :, 0] / 2 + 0.5
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.l1_loss(out, images) + 2 * F.mse_loss(out, images) + 2e-4 * kl

    fit(vae.parameters(), step_loss, recipe.vae_steps, recipe.vae_lr, "autoencoder")
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        images = random_pictures(400, recipe.size, rng)
        latents = vae.encode((images * 2 - 1).unsqueeze(2)).latent_dist.mode()
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in latents.mean((0, 2, 3, 4)).tolist()],
        latents_std=[round(v, 4) for v in latents.std((0, 2, 3, 4)).tolist()],
    )


def polish_decoder(vae, recipe: Recipe) -> None:
    """Train the decoder alone on latents with more noise: what a transformer draws is not exact, and a yellow square
    with a little error must not come out as a circle. The encoder, and so what the transformer learnt, stays.
    """
    seed_everything(recipe.seed + 2)
    rng = np.random.default_rng(recipe.seed + 2)
    mean, std = latent_stats(vae, torch.zeros(1))
    vae.decoder.requires_grad_(True)

    def step_loss(step: int) -> torch.Tensor:
        scenes = random_scenes(recipe.vae_batch, rng)
        images = compose(scenes, random_variants(scenes, rng), recipe.size)
        latents = dit.to_latents(vae, images).unsqueeze(2)
        level = torch.rand(len(images), 1, 1, 1, 1) * recipe.polish_noise
        noisy = latents + level * torch.randn_like(latents)
        out = vae.decoder(vae.post_quant_conv(noisy * std + mean))[:, :, 0] / 2 + 0.5
        clean = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return F.l1_loss(out, clean) + 2 * F.mse_loss(out, clean)

    fit(vae.decoder.parameters(), step_loss, recipe.polish_steps, recipe.vae_lr / 2, "decoder")
    vae.decoder.requires_grad_(False)


@torch.no_grad()
def measure(draw_pipe, edit_pipe, recipe: Recipe, count: int, edits: int, steps: int = 8) -> dict[str, float]:
    """Held-out quality through the stock pipelines, read by the checker."""
    rng = np.random.default_rng(recipe.seed + 10)
    texts, scenes = text.training_prompts(count, rng, unseen=True)
    size = {"height": recipe.size, "width": recipe.size, "num_inference_steps": steps, "output_type": "np"}
    drawn = np.concatenate(
        [
            draw_pipe(texts[i : i + 50], true_cfg_scale=1.0, generator=torch.Generator().manual_seed(i), **size).images
            for i in range(0, count, 50)
        ]
    )
    right = read_scenes((drawn * 255).round().astype(np.uint8)) == scenes
    quality = {"draft_all_correct": right.all(1).mean(), "draft_cells": right.mean()}
    instructions, drafts, targets, _ = text.training_edits(edits, rng, unseen=True)
    found = [
        edit_once(edit_pipe, t, render(tuple(d), recipe.size), size, i)
        for i, (t, d) in enumerate(zip(instructions, drafts, strict=True))
    ]
    quality["edit_all_correct"] = (read_scenes(np.stack(found)) == targets).all(1).mean()
    return {name: float(value) for name, value in quality.items()}


def edit_once(edit_pipe, instruction: str, draft: np.ndarray, size: dict, seed: int) -> np.ndarray:
    """One edit through the stock pipeline: picture in, picture out, `[H, W, 3]` uint8."""
    from PIL import Image

    from qwenlab.core.image_conditioning import working_areas

    area = draft.shape[0] * draft.shape[1]
    with working_areas(area, area):
        out = edit_pipe(
            image=[Image.fromarray(draft)], prompt=instruction, true_cfg_scale=1.0,
            generator=torch.Generator().manual_seed(seed), **size,
        )  # fmt: skip
    return (out.images[0] * 255).round().astype(np.uint8)


def train(recipe: Recipe, out: str | Path) -> dict[str, float]:
    """Train autoencoder, text encoder and transformer, save them to `out` in fp16, return held-out quality."""
    seed_everything(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    draw_pipe, edit_pipe = build_pipelines(recipe)
    draw_pipe.transformer.requires_grad_(False)
    train_vae(draw_pipe.vae, recipe, rng)
    scenes = random_scenes(200, rng)
    images = torch.from_numpy(compose(scenes, random_variants(scenes, rng), recipe.size)).permute(0, 3, 1, 2) / 255
    print(f"autoencoder: {psnr(draw_pipe.vae, images):.1f} dB", flush=True)

    def pictures(drawn: np.ndarray) -> np.ndarray:
        return compose(drawn, random_variants(drawn, rng), recipe.size)

    quality = text.pretrain(draw_pipe, edit_pipe, pictures, recipe.text_steps, recipe.text_batch, recipe.text_lr, rng)
    print(f"text encoder, held-out scenes: {quality}", flush=True)
    draw_pipe.transformer.requires_grad_(True)
    quality["velocity_mse"] = dit.train_transformer(
        draw_pipe, edit_pipe, recipe.size, recipe.steps, recipe.batch, recipe.lr, recipe.edit_share, rng
    )
    draw_pipe.transformer.eval().requires_grad_(False)
    polish_decoder(draw_pipe.vae, recipe)
    quality["vae_psnr"] = psnr(draw_pipe.vae, images)
    quality |= measure(draw_pipe, edit_pipe, recipe, 200, 60)
    quality = {name: float(f"{value:.4g}") for name, value in quality.items()}
    print(f"held out: {quality}", flush=True)
    save(edit_pipe, recipe, quality, out)
    return quality


README = """# Stand-in for Qwen/Qwen-Image and Qwen/Qwen-Image-Edit-2509

One set of tiny components, saved as a `QwenImageEditPlusPipeline` (edits a picture by an instruction);
`QwenImagePipeline` loads the same folder (draws from a prompt). Every class is the published pipelines', the sizes are
small. It stands for the published checkpoints where none can be had, so that the same code runs on a laptop. It knows
one small world (`core/scenes.py`: coloured shapes in 2x2 cells at {recipe.size} px) and nothing else.

Made by `dvc repro -f -s standin-scenes_image` from the recipe `standins.scenes_image` in params.yaml, on renders alone.
Target scenes with `held_out` (one of five, by hash) were never trained on.

- Autoencoder ({vae:.2f} M parameters, shrinks each side by 4): {recipe.vae_steps} steps, and its decoder alone
  {recipe.polish_steps} more on noisy latents.
- Qwen2.5-VL text encoder ({text:.2f} M; its image tower stays random): {recipe.text_steps} steps of telling from the
  prompt what each cell shall hold.
- Transformer ({dit:.2f} M): {recipe.steps} steps of flow matching, {recipe.edit_share:.0%} of them edits.

Weights are fp16. Read by the checker on held-out scenes, 8 steps a picture:

| what | right |
| --- | --- |
| drafts, every cell | {quality[draft_all_correct]:.3f} |
| drafts, cells | {quality[draft_cells]:.3f} |
| edits of a clean picture with one wrong cell: every cell right afterwards | {quality[edit_all_correct]:.3f} |

Autoencoder PSNR {quality[vae_psnr]:.1f} dB. Most errors are circles for squares, yellow ones above all. The drafts are
wrong often enough for reflection to have something to repair; that is what they are for.

Two constants of diffusers hold for the published tokenizer only: `prompt_template_encode_start_idx` (34 and 64). The
loaders derive it from the tokenizer (`core/image_conditioning.py`).
"""


def save(pipe, recipe: Recipe, quality: dict[str, float], out: str | Path) -> None:
    """Save the pipeline in fp16 (it loads in any dtype) with a README.md, the folder complete or not at all."""
    millions = {
        name: sum(p.numel() for p in model.parameters()) / 1e6
        for name, model in (("vae", pipe.vae), ("dit", pipe.transformer), ("text", pipe.text_encoder))
    }
    with atomic_dir(out) as folder:
        pipe.to(torch.float16)
        pipe.save_pretrained(folder)
        (folder / "README.md").write_text(README.format(recipe=recipe, quality=quality, **millions), encoding="utf-8")
