"""The transformer of the image stand-in: a tiny `QwenImageTransformer2DModel` that draws the next frame.

It reads the noisy target, the edge picture (picture 1), the previous frame (picture 2) and the prompt, and predicts
the flow velocity. It is trained on three kinds of instruction, so that the prompt and `true_cfg_scale` mean something:
"deform picture 2 to the shape in picture 1", "keep picture 2", and the empty prompt " ", which stands for either.
Half of the previous frames are noisy or the model's own earlier outputs: without that a roll-out drifts into
high-contrast garbage within five frames.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from qwenlab.core.edges import sobel_edges
from qwenlab.core.image_vae import decode_latents, encode_images, pack_latents, unpack_latents
from qwenlab.core.media import to_image
from qwenlab.core.progress import progress
from qwenlab.standins.image_data import ClipMaker
from qwenlab.standins.loop import fit

WARP_PROMPTS = (
    "将图 2 按图 1 所勾勒出的精致形状进行变形，生成一张图像输出",
    "Deform picture 2 to the fine shape outlined in picture 1 and output one image.",
)
KEEP_PROMPTS = ("保持图 2 不变，原样输出", "Keep picture 2 unchanged.")
EMPTY_PROMPT = " "
PROMPTS = (*WARP_PROMPTS, *KEEP_PROMPTS, EMPTY_PROMPT)


def build_transformer(z_dim: int, layers: int, heads: int, text_dim: int):
    """An untrained `QwenImageTransformer2DModel` with 64-dimensional heads."""
    from diffusers import QwenImageTransformer2DModel

    axes = (8, 28, 28)
    model = QwenImageTransformer2DModel(
        in_channels=4 * z_dim,
        out_channels=z_dim,
        num_layers=layers,
        attention_head_dim=64,
        num_attention_heads=heads,
        joint_attention_dim=text_dim,
        axes_dims_rope=axes,
    )
    # Queries and keys that start equal on the height and width part of the rotary embedding attend to the same
    # place in the other pictures from the first step on; the frame part starts at 0, so all pictures are alike.
    place = torch.cat([torch.zeros(axes[0]), torch.ones(axes[1] + axes[2])]).repeat(heads)
    for block in model.transformer_blocks:
        block.attn.to_q.bias.data, block.attn.to_k.bias.data = place.clone(), place.clone()
    torch.nn.init.zeros_(model.proj_out.weight)
    return model


def edge_pictures(frames: torch.Tensor) -> torch.Tensor:
    """Edge frames as pictures: `[N, 3, H, W]` -> `[N, 3, H, W]`, rounded to 8 bits as a file would be."""
    return ((sobel_edges(frames) * 255).round() / 255).expand(-1, 3, -1, -1)


@torch.no_grad()
def embed_prompts(
    pipe, prompts: list[str], edge: torch.Tensor, previous: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings as the pipeline makes them, batched: `[N, L, D]` and mask `[N, L]`."""
    picture = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"
    head = picture.format(1) + picture.format(2)
    texts = [pipe.prompt_template_encode.format(head + prompt) for prompt in prompts]
    images = [[to_image(e), to_image(p)] for e, p in zip(edge, previous, strict=True)]
    inputs = pipe.processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    keys = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
    hidden = pipe.text_encoder(**{k: inputs[k] for k in keys}, output_hidden_states=True).hidden_states[-1]
    drop = pipe.prompt_template_encode_start_idx
    return hidden[:, drop:], inputs["attention_mask"][:, drop:].bool()


@dataclass
class Pool:
    """Encoded training clips. Latents are normalised, `[clips, frames, C, h, w]`; embeddings belong to a pair."""

    frames: torch.Tensor
    edges: torch.Tensor
    own: torch.Tensor  # what the model itself drew for a frame, where `has_own`
    has_own: torch.Tensor  # [clips, frames] bool
    noise: torch.Tensor  # [clips, C, h, w]: what all frames of a clip's roll-out start from
    embeds: torch.Tensor  # [clips, frames - 1, prompts, L, D]
    masks: torch.Tensor  # [clips, frames - 1, prompts, L]


@torch.no_grad()
def build_pool(pipe, clips: ClipMaker, count: int, length: int) -> Pool:
    """Draw and encode `count` clips of `length` frames. Each pair gets one random prompt of every kind."""
    data: dict[str, list[torch.Tensor]] = {name: [] for name in ("frames", "edges", "embeds", "masks")}
    widest = 0
    with progress() as bar:
        for index in bar.track(range(count), description="encoding clips"):
            pixels = clips.clip(length)
            pictures = edge_pictures(pixels)
            kinds = [WARP_PROMPTS[index % 2], KEEP_PROMPTS[index % 2], EMPTY_PROMPT]
            embeds, masks = embed_prompts(
                pipe,
                kinds * (length - 1),
                pictures[1:].repeat_interleave(3, 0),
                pixels[:-1].repeat_interleave(3, 0),
            )
            data["frames"].append(encode_images(pipe.vae, pixels)[:, :, 0])
            data["edges"].append(encode_images(pipe.vae, pictures)[:, :, 0])
            data["embeds"].append(embeds.unflatten(0, (length - 1, 3)))
            data["masks"].append(masks.unflatten(0, (length - 1, 3)))
            widest = max(widest, embeds.shape[1])
    data["embeds"] = [torch.nn.functional.pad(e, (0, 0, 0, widest - e.shape[2])) for e in data["embeds"]]
    data["masks"] = [torch.nn.functional.pad(m, (0, widest - m.shape[2])) for m in data["masks"]]
    stacked = {name: torch.stack(values) for name, values in data.items()}
    own = torch.zeros_like(stacked["frames"])
    noise = torch.randn_like(own[:, 0])
    return Pool(own=own, has_own=torch.zeros(own.shape[:2], dtype=torch.bool), noise=noise, **stacked)


def velocity(transformer, noisy, sigma, edge, previous, embeds, mask) -> torch.Tensor:
    """Predicted `noise - x0`, latents `[B, C, h, w]` in and out; sigma `[B]`."""
    height, width = noisy.shape[-2:]
    tokens = torch.cat([pack_latents(x.unsqueeze(2)) for x in (noisy, edge, previous)], 1)
    shape = (1, height // 2, width // 2)
    out = transformer(
        hidden_states=tokens,
        timestep=sigma,
        encoder_hidden_states=embeds,
        encoder_hidden_states_mask=None if mask.all() else mask,
        img_shapes=[[shape] * 3] * len(noisy),
        return_dict=False,
    )[0]
    return unpack_latents(out[:, : (height // 2) * (width // 2)], height, width)[:, :, 0]


def shifted_sigmas(uniform: torch.Tensor | np.ndarray, mu: float = 0.5):
    """The scheduler's exponential time shift of noise levels in (0, 1]."""
    return math.exp(mu) / (math.exp(mu) + 1 / uniform - 1)


@torch.no_grad()
def draw(transformer, x, edge, previous, embeds, mask, steps: int) -> torch.Tensor:
    """Sample frames from noise `x` with Euler steps. Latents `[B, C, h, w]`."""
    sigmas = torch.tensor([*shifted_sigmas(np.linspace(1, 1 / steps, steps)), 0.0], dtype=torch.float32)
    for now, then in itertools.pairwise(sigmas):
        v = velocity(transformer, x, now.expand(len(x)), edge, previous, embeds, mask)
        x = x + (then - now) * v
    return x


@torch.no_grad()
def roll_out(pipe, pool: Pool, count: int, steps: int = 8) -> None:
    """Let the model draw frames 1, 2, ... of `count` random clips from its own outputs; they become inputs.

    Every frame of a clip starts from the same noise, as an edited video does (one seed, reset per frame): a flaw that
    the noise causes in one frame then meets the same noise in the next, and would grow if training never saw it.
    """
    chosen = torch.randperm(len(pool.frames))[:count]
    with progress() as bar:
        for rows in bar.track(chosen.split(25), description="rolling out"):
            previous = pool.frames[rows, 0]
            for k in range(1, pool.frames.shape[1] - 1):
                prompt = pool.embeds[rows, k - 1, 0], pool.masks[rows, k - 1, 0]
                latents = draw(pipe.transformer, pool.noise[rows], pool.edges[rows, k], previous, *prompt, steps)
                pixels = decode_latents(pipe.vae, latents.unsqueeze(2)).clamp(0, 1)
                previous = encode_images(pipe.vae, pixels)[:, :, 0]
                pool.own[rows, k], pool.has_own[rows, k] = previous, True


def corrupt(previous: torch.Tensor) -> torch.Tensor:
    """What a roll-out does to frames, to be undone: too much contrast (half of them), and noise (a fifth)."""
    batch = len(previous)
    gain = 1 + torch.rand(batch, 1, 1, 1) * 0.3 * (torch.rand(batch, 1, 1, 1) < 0.5)
    noise = torch.rand(batch, 1, 1, 1) * 0.3 * (torch.rand(batch, 1, 1, 1) < 0.2)
    return previous * gain + noise * torch.randn_like(previous)


def train_transformer(pipe, pool: Pool, steps: int, batch: int, lr: float, roll_outs: int) -> float:
    """Flow matching on the pool; twice on the way the model's own roll-outs join the previous frames."""
    count, length = pool.frames.shape[:2]

    def step_loss(step: int) -> torch.Tensor:
        if step in [int(steps * part) for part in (0.5, 0.75)]:
            roll_out(pipe, pool, roll_outs)
        rows, k = torch.randint(count, (batch,)), torch.randint(1, length, (batch,))
        # Kinds: 0 deform, 1 keep, 2 empty prompt. The empty prompt means either, half and half.
        kind = torch.multinomial(torch.tensor([0.84, 0.06, 0.1]), batch, replacement=True)
        keep = (kind == 1) | ((kind == 2) & (torch.rand(batch) < 0.5))
        clean_previous = pool.frames[rows, k - 1]
        use_own = pool.has_own[rows, k - 1] & (torch.rand(batch) < 0.4)
        previous = torch.where(use_own.view(-1, 1, 1, 1), pool.own[rows, k - 1], clean_previous)
        target = torch.where(keep.view(-1, 1, 1, 1), previous, pool.frames[rows, k])
        previous = torch.where(keep.view(-1, 1, 1, 1), previous, corrupt(previous))
        sigma = shifted_sigmas(torch.rand(batch).clamp_min(1e-3))
        noise = torch.where(use_own.view(-1, 1, 1, 1), pool.noise[rows], torch.randn_like(target))
        s = sigma.view(-1, 1, 1, 1)
        embeds, mask = pool.embeds[rows, k - 1, kind], pool.masks[rows, k - 1, kind]
        noisy = (1 - s) * target + s * noise
        out = velocity(pipe.transformer, noisy, sigma, pool.edges[rows, k], previous, embeds, mask)
        return (out - (noise - target)).square().mean()

    return fit(pipe.transformer.parameters(), step_loss, steps, lr, "transformer", warmup=50)
