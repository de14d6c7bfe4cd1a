"""Greedy decoding with latents for a whole batch, over a KV cache.

When a sample has written `<abs_vis_token>`, its own hidden states are its next K inputs, then the end token is forced.
Every sample keeps its own count, so they need not begin at the same step.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from qwenlab.latentcot.latents import embed, scaled
from qwenlab.latentcot.tokens import LATENT_END, LATENT_PAD, LATENT_START, OBSERVATION_END, OBSERVATION_START

Mode = Literal["on", "zero", "pause"]


@dataclass(frozen=True)
class Decoded:
    """texts: what each sample wrote, special tokens included; latents `[B, blocks, K, H]`: what was fed back, zeros
    where a sample thought in fewer blocks than the one with most (1 at least)."""

    texts: list[str]
    latents: torch.Tensor


@torch.no_grad()
def generate(model, tokenizer, special: dict[str, int], prompt: dict, latents: int, norm: str = "none",
             mode: Mode = "on", inject: torch.Tensor | None = None, longest: int = 48) -> Decoded:  # fmt: skip
    """Continue prompts.

    Args:
        prompt: ids, mask `[B, S]` (padded on the left), positions `[3, B, S]`, features.
        mode: on: hidden states are fed back; zero: vectors of zeros in their place; pause: the pad's embedding.
        inject: `[B, blocks, K, H]` to be fed in place of a sample's own latents (of another sample, say).
        longest: most tokens written, latents included.
    """
    body, table, device = model.model.language_model, model.get_input_embeddings(), model.device
    from transformers import DynamicCache

    cache, mask = DynamicCache(), prompt["mask"].long()
    inputs, positions = embed(model, prompt["ids"], prompt["features"]), prompt["positions"]
    rows, last = len(mask), positions.amax((0, 2))
    count = torch.full((rows,), -1, device=device)  # latents fed so far; -1 outside a block
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    blocks = torch.zeros(rows, dtype=torch.long, device=device)
    each = torch.arange(rows, device=device)
    kept = torch.zeros(rows, 1, latents, table.weight.shape[1], dtype=inputs.dtype, device=device)
    written: list[torch.Tensor] = []
    for _ in range(longest):
        hidden = body(
            inputs_embeds=inputs, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        token = model.lm_head(hidden).argmax(-1)
        inside, ends = (count >= 0) & (count < latents), count == latents
        token = torch.where(inside, special[LATENT_PAD], torch.where(ends, special[LATENT_END], token))
        token = torch.where(done, special["<|endoftext|>"], token)
        vector = table(token)
        if inside.any() and mode != "pause":
            step = count.clamp(0, latents - 1)
            thought = scaled(hidden, model, norm) if mode == "on" else torch.zeros_like(hidden)
            if inject is not None:
                thought = inject[each, (blocks - 1).clamp(0, inject.shape[1] - 1), step].to(thought)
            if int(blocks.max()) > kept.shape[1]:
                kept = torch.cat([kept, torch.zeros_like(kept[:, :1])], 1)
            kept[each[inside], blocks[inside] - 1, step[inside]] = thought[inside]
            vector = torch.where(inside[:, None], thought, vector)
        started = (token == special[LATENT_START]) & ~done & (latents > 0)
        blocks += started
        count = torch.where(started, 0, torch.where(inside, count + 1, torch.where(ends, -1, count)))
        written.append(token)
        done = done | (token == special["<|im_end|>"])
        if done.all():
            break
        last = last + 1
        inputs, positions = vector[:, None], last[None, :, None].expand(3, -1, -1)
        mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
    texts = tokenizer.batch_decode(torch.stack(written, 1), skip_special_tokens=False)
    return Decoded([text.replace("<|endoftext|>", "") for text in texts], kept)


def observations(text: str) -> str | None:
    """What stands between the first pair of observation tags; None when there is none, or it is not closed (a text
    cut at its largest length, say): the draft is then kept."""
    _, opened, rest = text.partition(OBSERVATION_START)
    inside, closed, _ = rest.partition(OBSERVATION_END)
    return inside.strip() if opened and closed else None
