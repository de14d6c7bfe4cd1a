"""Attention that never looks where the windows forbid (seed 003, 1.1): "gather" for every device, "flex" for GPUs.

    plan = gather_plan(hsa, semantic_ids, causal)     # once a forward
    output = plan.attend(query, key, value)           # in every layer

A chunk of queries sees a band, which is its own keys and the window before them, and the *kept* keys before the band:
those whose type has no window. Both parts stand side by side in one small stock attention with a float mask, so there
is one softmax, no key counts twice, and a `[S, S]` tensor never exists. Related: landmark attention, NSA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from qwenlab.core.errors import UserError
from qwenlab.hsa.bias import HSA, wide
from qwenlab.hsa.semantics import check_semantic_ids

CHUNK = 256  # queries; larger ones compute more that is masked, smaller ones copy more


@dataclass(frozen=True)
class Block:
    """What one chunk of queries sees: some sections of kept keys, then the band."""

    sections: list[int]
    band: int  # position of its first key
    mask: torch.Tensor  # [B, 1 or heads, queries, keys], boolean or additive


@dataclass(frozen=True)
class GatherPlan:
    """Indices and masks of one forward, the same for all layers."""

    chunk: int
    kept: torch.Tensor  # [B, K] positions of the keys without a window
    sizes: list[int]  # of the sections of K: chunk c may see the first c of them
    blocks: list[Block]

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None = None,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        """`[B, heads, S, D]`, and keys and values `[B, key heads, S, D]` -> `[B, heads, S, D]`."""
        groups = query.shape[1] // key.shape[1]
        # Split once and put together again: the backward of a slice would write a full-size tensor for each chunk.
        sources = [self._pieces(x.repeat_interleave(groups, dim=1) if groups > 1 else x) for x in (key, value)]
        outputs = []
        for index, (block, queries) in enumerate(zip(self.blocks, query.split(self.chunk, dim=2), strict=True)):
            keys, values = (self._seen(pieces, block, index) for pieces in sources)
            mask = block.mask if block.mask.dtype == torch.bool else block.mask.to(query.dtype)
            outputs.append(functional.scaled_dot_product_attention(queries, keys, values, mask, dropout, scale=scaling))
        return torch.cat(outputs, dim=2)

    def _pieces(self, x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Sections of kept rows and chunks of all rows of `[B, heads, S, D]`."""
        kept = x.gather(2, self.kept[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        return kept.split(self.sizes, dim=2), x.split(self.chunk, dim=2)

    def _seen(self, pieces: tuple, block: Block, index: int) -> torch.Tensor:
        sections, chunks = pieces
        first, skip = divmod(block.band, self.chunk)
        band = [chunks[first][:, :, skip:], *chunks[first + 1 : index + 1]]
        return torch.cat([*(sections[i] for i in block.sections), *band], dim=2)


def gather_plan(
    hsa: HSA,
    types: torch.Tensor,
    mask_function: Callable,
    attention_mask: torch.Tensor | None,
    dtype: torch.dtype,
    chunk: int = CHUNK,
) -> GatherPlan:
    """Who sees whom, for sequences of the types `[B, S]`.

    Args:
        mask_function: the library's: `(batch, head, query, key)` indices -> seen; causal, and no view across documents.
        attention_mask: `[B, S]`, 0 for padding.
        dtype: of the masks.
    """
    batch, length = types.shape
    device = types.device
    rows = torch.arange(batch, device=device)[:, None, None, None]
    head = torch.zeros(1, dtype=torch.long, device=device)[None, :, None, None]
    real = torch.ones_like(types, dtype=torch.bool) if attention_mask is None else attention_mask[:, :length].bool()
    limits = [window for window in hsa.config.window if window is not None]
    reach = min(max(limits, default=0), length)
    free = hsa.windows(types).isinf() & real
    # Positions of the kept keys in order; rows with fewer of them end in `length`, which no chunk sees.
    kept = (
        torch.where(free, torch.arange(length, device=device), length).sort(dim=1).values[:, : int(free.sum(1).max())]
    )
    bands = [max(0, start - reach) for start in range(0, length, chunk)]
    counts = [int((kept < band).sum(1).max()) for band in bands] if kept.shape[1] else [0] * len(bands)
    sizes = [after - before for before, after in zip([0, *counts], [*counts, kept.shape[1]], strict=True)]
    index = kept.clamp(max=length - 1)
    blocks = []
    for number, (band, count) in enumerate(zip(bands, counts, strict=True)):
        queries = torch.arange(number * chunk, min((number + 1) * chunk, length), device=device)
        near = torch.arange(band, int(queries[-1]) + 1, device=device).expand(batch, -1)
        keys = torch.cat([index[:, :count], near], dim=1)
        alone = torch.cat([kept[:, :count] < band, torch.ones_like(near, dtype=torch.bool)], dim=1)
        seen = mask_function(rows, head, queries[None, None, :, None], keys[:, None, None, :])
        seen = seen & (alone & real.gather(1, keys))[:, None, None, :]
        # Sections of other documents, or behind a sliding window, need not be computed at all.
        parts = seen.any(2).any(0)[0].split([*sizes[: number + 1], near.shape[1]])
        sections = [i for i, part in enumerate(parts[:-1]) if part.any()]
        if sum(sizes[i] for i in sections) < count:
            columns = torch.arange(keys.shape[1], device=device).split([*sizes[: number + 1], near.shape[1]])
            chosen = torch.cat([*(columns[i] for i in sections), columns[-1]])
            keys, seen = keys[:, chosen], seen[..., chosen]
        mask = hsa.add_to(seen, types[:, queries], types.gather(1, keys), queries, keys, dtype)
        blocks.append(Block(sections, band, mask))
    return GatherPlan(chunk, index, sizes, blocks)


def gather_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    semantic_ids: torch.Tensor,
    hsa: HSA,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Causal semantic attention without a model, the same as dense attention with the float mask.

    Args:
        query: `[B, heads, S, D]`; key, value: `[B, key heads, S, D]`.
        semantic_ids: `[B, S]`.
        attention_mask: `[B, S]`, 0 for padding.
        position_ids: `[B, S]`; where they do not count on, another packed document starts.

    Returns:
        `[B, heads, S, D]`; rows of padding are without meaning.

    Raises:
        UserError: on bad ids.
    """
    check_semantic_ids(semantic_ids, (query.shape[0], query.shape[2]))
    documents = torch.zeros_like(semantic_ids, dtype=torch.long)
    if position_ids is not None:
        documents[:, 1:] = (position_ids.diff(dim=1) != 1).cumsum(1)

    def causal(batch_idx, head_idx, q_idx, kv_idx):
        return (kv_idx <= q_idx) & (documents[batch_idx, q_idx] == documents[batch_idx, kv_idx])

    plan = gather_plan(hsa, semantic_ids.long(), causal, attention_mask, query.dtype, chunk)
    return plan.attend(query, key, value, scaling, dropout)


@dataclass(frozen=True)
class FlexPlan:
    """The same for FlexAttention: blocks that nobody sees are skipped, the bias is computed inside the kernel."""

    block_mask: Any
    score_mod: Callable

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None = None,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        """`[B, heads, S, D]`, and keys and values `[B, key heads, S, D]` -> `[B, heads, S, D]`."""
        if dropout:
            raise UserError("impl 'flex' has no dropout; set attention_dropout to 0, or use another impl.")
        return _flex_kernel(query.is_cuda)(
            query, key, value, self.score_mod, self.block_mask, scaling, query.shape[1] != key.shape[1]
        )


@lru_cache
def _flex_kernel(compiled: bool) -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = flex_attention  # uncompiled is for tests on a CPU
    return torch.compile(kernel) if compiled else kernel


def flex_plan(
    hsa: HSA, types: torch.Tensor, mask_function: Callable, attention_mask: torch.Tensor | None, dtype: torch.dtype
) -> FlexPlan:
    """As `gather_plan`, for types `[B, S]`; written to the rules of FlexAttention, which compiles both functions."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, length = types.shape
    types, window = types.long(), hsa.windows(types)
    real = torch.ones_like(types, dtype=torch.bool) if attention_mask is None else attention_mask[:, :length].bool()
    slope = torch.tensor(hsa.config.slope, device=types.device)[types]
    scale = None if hsa.log_scale is None else wide(hsa.log_scale).exp()
    pair = None if hsa.pair is None else wide(hsa.pair)

    def mask_mod(batch_idx, head_idx, q_idx, kv_idx):
        near = (q_idx - kv_idx).abs() <= window[batch_idx, kv_idx]
        return mask_function(batch_idx, head_idx, q_idx, kv_idx) & real[batch_idx, kv_idx] & near

    def score_mod(score, batch_idx, head_idx, q_idx, kv_idx):
        fading = slope[batch_idx, kv_idx] * (q_idx - kv_idx).abs()
        score = score - (fading if scale is None else fading * scale[head_idx])
        if pair is not None:
            score = score + pair[head_idx, types[batch_idx, q_idx], types[batch_idx, kv_idx]]
        return score

    block_mask = create_block_mask(mask_mod, batch, None, length, length, device=types.device)
    return FlexPlan(block_mask, score_mod)


def attention_forward(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
):
    """Stock SDPA, or the plan that the mask function of gather and flex made in place of a mask."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(mask, GatherPlan | FlexPlan):
        dropout, scaling = kwargs.get("dropout") or 0.0, kwargs.get("scaling")
        return mask.attend(query, key, value, scaling, dropout).transpose(1, 2).contiguous(), None
    if isinstance(mask, torch.Tensor) and mask.is_floating_point():
        mask = mask.to(query.dtype)
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
