"""Latent reasoning in one pass: hidden states fed back as inputs, for a whole batch, with exact gradients.

Monet (Wang et al. 2025) computes the latents in a first pass, sample by sample, and runs a second pass with them put
in. Here the batch runs once, in segments over one KV cache: text up to a block, K single steps whose input is the
hidden state before, text behind. Nothing is computed twice, because the second pass would find in the cache what the
first one left there.

Gradients are those of the two passes, where the input of a latent step is detached (the cache is not): a step's
input is a leaf `x`, and after the cross-entropy and the alignment are known,

    d loss / d parameters = d CE / d parameters + d/d parameters of sum_k z_k * d(CE + w * align)/d x_k

so that the alignment reaches the weights only through the latents (Monet's rule) unless `direct` asks for more.
"""

from dataclasses import dataclass

import torch

from qwenlab.core.errors import UserError


@dataclass(frozen=True)
class Pass:
    """What one pass leaves.

    hidden `[B, S, H]` after the last norm; layers: `[B, S, H]` each, L + 1 of them (empty unless asked for); latents:
    `[B, H]` each, with graph; inputs: what was fed in their place, leaves where detached.
    """

    hidden: torch.Tensor
    layers: list[torch.Tensor]
    latents: list[torch.Tensor]
    inputs: list[torch.Tensor]


def embed(model, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """`[B, S, H]`: token embeddings, with vision features where an image token stands."""
    table = model.get_input_embeddings()(ids)
    where = ids == model.config.image_token_id
    if int(where.sum()) != (len(features) if features.shape[-1] == table.shape[-1] else 0):
        raise ValueError(f"{int(where.sum())} image tokens, but {len(features)} vision features.")
    return table.masked_scatter(where[..., None], features.to(table)) if len(features) else table


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[B, Q, S]` bool as `[B, 1, Q, S]` of 0 and the lowest number: eager attention of transformers 5 silently reads
    a bool mask as numbers to add."""
    out = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return out.masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


def check(model) -> None:
    """Refuse what would be silently wrong.

    Raises:
        UserError: with gradient checkpointing, which drops the KV cache in training, or an attention that takes no
            mask of four dimensions.
    """
    if model.training and any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        raise UserError("gradient checkpointing drops the KV cache that latents live in; turn it off for this stage.")
    if (kind := model.config._attn_implementation) not in ("sdpa", "eager"):
        raise UserError(f"attention {kind!r} takes no mask of four dimensions; expected sdpa or eager.")


def scaled(hidden: torch.Tensor, model, norm: str) -> torch.Tensor:
    """A hidden state as an input. `rms`: as large as a word's embedding (GAP, 2605.12374: raw states are larger)."""
    if norm == "none":
        return hidden
    table = model.get_input_embeddings().weight
    size = table.detach().float().pow(2).mean().sqrt().to(hidden.dtype)
    return hidden * size / hidden.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def run(model, batch: dict, latents: int, norm: str = "none", detach: bool = True, layers: bool = False) -> Pass:
    """One pass over a batch of `batch.Collator`.

    Args:
        latents: K; 0 where pads are ordinary tokens.
        detach: whether the inputs of latent steps are leaves (Monet); else gradients flow through all of them.
        layers: whether to keep the hidden states of all layers.
    """
    check(model)
    body = model.model.language_model
    embeds, positions = embed(model, batch["ids"], batch["features"]), batch["positions"]
    mask = additive(batch["mask"], embeds.dtype)
    blocks = batch["blocks"].tolist() if latents else []
    cache = None
    if blocks:
        from transformers import DynamicCache

        cache = DynamicCache()
    outs: list = []

    def step(inputs: torch.Tensor, start: int) -> torch.Tensor:
        end = start + inputs.shape[1]
        outs.append(
            body(
                inputs_embeds=inputs, position_ids=positions[..., start:end],
                attention_mask=mask[:, :, start:end, :end], past_key_values=cache, use_cache=cache is not None,
                output_hidden_states=layers,
            )
        )  # fmt: skip
        return outs[-1].last_hidden_state

    start, found, inputs = 0, [], []
    for block in blocks:
        last = step(embeds[:, start:block], start)[:, -1]
        for k in range(latents):
            found.append(scaled(last, model, norm))
            leaf = found[-1].detach().requires_grad_(torch.is_grad_enabled()) if detach else found[-1]
            inputs.append(leaf)
            last = step(leaf[:, None], block + k)[:, -1]
        start = block + latents
    step(embeds[:, start:], start)
    hidden = torch.cat([out.last_hidden_state for out in outs], 1)
    kept = [torch.cat(parts, 1) for parts in zip(*(out.hidden_states for out in outs), strict=True)] if layers else []
    return Pass(hidden, kept, found, inputs)


def wide(values: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(model, hidden: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over the tokens that count, normalised by the weighted count. `[B, S, H]`, `[B, S]`, `[B, S]`."""
    counts = weight[:, 1:] > 0
    if not counts.any():
        raise UserError("every label of a batch is ignored; there is nothing to learn.")
    logits = wide(model.lm_head(hidden[:, :-1][counts]))
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][counts], reduction="none")
    shares = weight[:, 1:][counts].to(losses)
    return (losses * shares).sum() / shares.sum()


def alignment(student: list[torch.Tensor], where: torch.Tensor, teacher: torch.Tensor, first: int) -> torch.Tensor:
    """1 - mean cosine between hidden states at `where` `[B, S]` and a teacher's `[layers, tokens, H]`.

    Cosines run over the hidden dimension: Monet's call leaves `dim` at 1, which is over tokens. A single layer in
    the teacher is the last one.

    Args:
        first: lowest layer that counts; layer 0 is the input.
    """
    if len(teacher) == 1:
        student, first = student[-1:], 0
    if len(student) != len(teacher) or int(where.sum()) != teacher.shape[1]:
        wanted = [len(student), int(where.sum())]
        raise UserError(f"teacher states of {list(teacher.shape[:2])} layers and tokens; expected {wanted}.")
    mine = torch.stack([layer[where] for layer in student[first:]])
    return 1 - torch.nn.functional.cosine_similarity(wide(mine), teacher[first:].to(wide(mine)), dim=-1).mean()


def surrogate(ce: torch.Tensor, align: torch.Tensor | None, weight: float, done: Pass, direct: bool) -> torch.Tensor:
    """A loss whose value is CE + weight * align and whose gradient is the one of the module's docstring.

    Args:
        direct: whether the alignment also reaches the weights directly, not only through the latents.
    """
    whole = ce if align is None else ce + weight * align
    leaves = [x for x in done.inputs if x.is_leaf]
    if not leaves or not torch.is_grad_enabled():
        return whole
    gradients = torch.autograd.grad(whole, leaves, retain_graph=True, allow_unused=True)
    proxy = sum(
        (z * g).sum() for z, g in zip(done.latents, gradients, strict=True) if g is not None and z.requires_grad
    )
    loss = whole if direct or align is None else ce + weight * align.detach()
    return loss + proxy - proxy.detach() if isinstance(proxy, torch.Tensor) else loss
