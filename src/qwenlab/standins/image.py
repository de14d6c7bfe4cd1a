"""Make the image stand-in: a tiny `QwenImageEditPlusPipeline`. Run: dvc repro -f standin-image (about 20 minutes)."""

from pathlib import Path

import torch

from qwenlab.core.image_conditioning import template_length
from qwenlab.core.io import atomic_dir
from qwenlab.core.media import center_crop, read_video, to_tensor
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins import image_dit, image_vae
from qwenlab.standins.image_data import ClipMaker

# The scheduler settings of Qwen/Qwen-Image-Edit-2509.
SCHEDULER = {
    "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 8192, "max_shift": 0.9,
    "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.02, "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}  # fmt: skip
HELD_OUT = ("carphone", "bigbuckbunny")  # the tuning and the evaluation clip: never trained on


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    width: int
    height: int
    base_dim: int
    z_dim: int
    layers: int
    heads: int
    text_dim: int
    vocab: int
    vae_clips: int
    vae_steps: int
    vae_batch: int
    vae_lr: float
    latent_noise: float
    clips: int
    clip_length: int
    steps: int
    batch: int
    lr: float
    roll_outs: int


def build_pipeline(recipe: Recipe):
    """An untrained tiny pipeline with every class of the published one."""
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    system = (
        "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain "
        "how the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
        "requirements while maintaining consistency with the original input where appropriate."
    )
    roles = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nPicture 1: Picture 2: <|im_start|>assistant\n"
    tokenizer = train_tokenizer([system, roles, *image_dit.PROMPTS], recipe.vocab)
    hidden = recipe.text_dim
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": hidden // 16,
            "num_key_value_heads": hidden // 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 384 * 384}
    pipe = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=image_vae.build_vae(recipe.base_dim, recipe.z_dim),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(
            image_processor=Qwen2VLImageProcessor(size=size),
            video_processor=Qwen2VLVideoProcessor(size=size),
            tokenizer=tokenizer,
            chat_template=tokenizer.chat_template,
        ),
        transformer=image_dit.build_transformer(recipe.z_dim, recipe.layers, recipe.heads, hidden),
    )
    pipe.prompt_template_encode_start_idx = template_length(pipe)
    pipe.text_encoder.requires_grad_(False)
    return pipe


def held_out_frames(assets: Path, clip: str, recipe: Recipe, count: int = 12) -> torch.Tensor:
    """Frames `[count, 3, H, W]` of a clip that no part of the training saw."""
    frames = read_video(assets / f"{clip}.mp4", 0, 10, count)
    return torch.cat([to_tensor(center_crop(frame, recipe.width, recipe.height)) for frame in frames])


def train(recipe: Recipe, assets: str | Path, out: str | Path) -> dict[str, float]:
    """Train autoencoder and transformer, save the pipeline to `out` in fp16, and return held-out quality."""
    assets = Path(assets)
    seed_everything(recipe.seed)
    clips = ClipMaker(assets, recipe.width, recipe.height, recipe.seed)
    pipe = build_pipeline(recipe)
    vae = pipe.vae
    squeezenet_file = assets / "squeezenet.pkl"
    vae_recipe = (recipe.vae_clips, recipe.vae_steps, recipe.vae_batch, recipe.vae_lr, recipe.latent_noise)
    image_vae.train_vae(vae, clips, *vae_recipe, squeezenet_file)
    vae.eval().requires_grad_(False)
    quality = {f"vae_psnr_{clip}": image_vae.psnr(vae, held_out_frames(assets, clip, recipe)) for clip in HELD_OUT}
    print(f"autoencoder, held out: {quality}", flush=True)
    # From here on nothing depends on how many random numbers the autoencoder took.
    seed_everything(recipe.seed + 1)
    clips = ClipMaker(assets, recipe.width, recipe.height, recipe.seed + 1)
    image_vae.set_latent_stats(vae, clips)
    pool = image_dit.build_pool(pipe, clips, recipe.clips, recipe.clip_length)
    quality["velocity_mse"] = image_dit.train_transformer(
        pipe, pool, recipe.steps, recipe.batch, recipe.lr, recipe.roll_outs
    )
    quality = {name: float(f"{value:.4g}") for name, value in quality.items()}
    save(pipe, recipe, quality, out)
    return quality


README = """# Stand-in for Qwen/Qwen-Image-Edit-2509

A tiny `QwenImageEditPlusPipeline`: every class of the published pipeline, small sizes, loaded by `from_pretrained`.
It stands for the published checkpoint where none can be had, so that the same code runs on a laptop. It is no
substitute in quality, and nothing that a seed document asks to train is in it.

Made by `dvc repro -f -s standin-image` from the recipe `standins.image` in params.yaml: autoencoder ({vae:.2f} M
parameters, shrinks each side by 4) {recipe.vae_steps} steps, transformer ({dit:.2f} M) {recipe.steps} steps at
{recipe.width}x{recipe.height} px. The Qwen2.5-VL text encoder ({text:.2f} M) keeps its random weights: it only has to
tell three instructions apart (deform picture 2 to the shape in picture 1; keep picture 2; the empty prompt), in
Chinese and in English. Training data: bikes.mp4, eight photos, painted scenes (see NOTICE). Weights are fp16.

Held out (no frame of these clips was trained on): autoencoder PSNR {quality[vae_psnr_carphone]:.1f} dB on carphone.mp4
and {quality[vae_psnr_bigbuckbunny]:.1f} dB on bigbuckbunny.mp4; training velocity MSE {quality[velocity_mse]:.3f}.
What its edits look like: metrics/videoedit/frames.png.
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
