"""The bias of semantic attention (seed 003, 1.1) and its parameters.

    bias[b, h, i, j] = pair[h, t_i, t_j] - slope[t_j] * exp(s_h) * |i - j|,   -inf where |i - j| > window[t_j]

t is a token's type: a key of type NOISE fades with distance, one of type GLOBAL does not. `pair` and `s` are learned
and start at 0. The published settings are a special case, and slope 0 without windows changes nothing. Related:
ALiBi (a slope a head), T5 (a learned bias), attention sinks, landmark attention.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import nn

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, read_json, write_json
from qwenlab.core.params import Params
from qwenlab.hsa.semantics import GLOBAL, TYPES

Slope = Annotated[float, Field(ge=0)]
Window = Annotated[int, Field(ge=0)] | None


class HSAConfig(Params):
    """What a key's type does to the attention that it gets. Lists are in the order GLOBAL, LANDMARK, NOISE.

    A window that is shorter than a turn of NOISE hides the start of the turn from its own end.
    """

    slope: tuple[Slope, Slope, Slope]  # of the bias, per token of distance
    window: tuple[Window, Window, Window]  # tokens; null: seen from everywhere
    learn_pair: bool = False  # a learned bias for each head, query type and key type
    learn_scale: bool = False  # a learned factor exp(s) on the slopes for each head
    type_embeddings: bool = False  # a learned vector for each type, added to the input embeddings


PRESETS = {
    "published": HSAConfig(slope=(0.0, 0.001, 0.5), window=(None, None, 50)),
    "noop": HSAConfig(slope=(0.0, 0.0, 0.0), window=(None, None, None)),
}


def wide(x: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision would blur distances."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class HSA(nn.Module):
    """Settings and learned parameters of one text decoder, for all its layers: the mask is built once a forward.

    Args:
        heads: of the queries.
        hidden_size: of the input embeddings.
    """

    def __init__(self, config: HSAConfig, heads: int, hidden_size: int):
        super().__init__()
        self.config = config
        self.pair = nn.Parameter(torch.zeros(heads, TYPES, TYPES)) if config.learn_pair else None
        self.log_scale = nn.Parameter(torch.zeros(heads)) if config.learn_scale else None
        self.type_table = nn.Parameter(torch.zeros(TYPES, hidden_size)) if config.type_embeddings else None

    def leaves_attention_alone(self, types: torch.Tensor | None) -> bool:
        """Whether attention is the stock one for these types; None means GLOBAL throughout."""
        scaled = self.log_scale is not None and any(self.config.slope)
        if self.pair is not None or scaled:
            return False
        present = [GLOBAL] if types is None else range(TYPES)
        return all(self.config.slope[t] == 0 and self.config.window[t] is None for t in present)

    def windows(self, types: torch.Tensor) -> torch.Tensor:
        """The window of every key, `[...]` -> `[...]` floats; infinity for none."""
        limits = [float("inf") if window is None else float(window) for window in self.config.window]
        return torch.tensor(limits, device=types.device)[types.long()]

    def bias(self, query_types: torch.Tensor, key_types: torch.Tensor, distance: torch.Tensor) -> torch.Tensor | None:
        """`[B, Q]`, `[B, K]`, `[B or 1, 1, Q, K]` -> `[B, heads or 1, Q, K]`, or None for 0 everywhere."""
        total = None
        if any(self.config.slope):
            slope = torch.tensor(self.config.slope, device=distance.device)
            total = -slope[key_types.long()][:, None, None] * distance
            if self.log_scale is not None:
                total = total * wide(self.log_scale).exp()[:, None, None]
        if self.pair is not None:
            pair = wide(self.pair)
            # One-hot products: the backward of an index into nine entries adds up millions of numbers one by one.
            query_rows, key_rows = (
                nn.functional.one_hot(types.long(), TYPES)[:, None].to(pair) for types in (query_types, key_types)
            )
            pairs = query_rows @ pair @ key_rows.transpose(-1, -2)
            total = pairs if total is None else total + pairs
        return total

    def add_to(
        self,
        mask: torch.Tensor,
        query_types: torch.Tensor,
        key_types: torch.Tensor,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """The mask with windows and bias.

        Args:
            mask: `[B or 1, 1, Q, K]`, boolean (True: seen) or additive.
            query_types, key_types: `[B, Q]` and `[B, K]`.
            query_positions, key_positions: `[Q]` and `[K]`, or with a batch dimension.
            dtype: of the result.

        Returns:
            `[B, heads or 1, Q, K]`, additive; boolean if the mask was and there are windows alone.
        """
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).abs()
        distance = (distance if distance.dim() == 3 else distance[None])[:, None].float()
        # The lowest number and not -inf, as in the library: rows of padding see nothing, and must not become NaN.
        lowest = torch.finfo(dtype).min
        if any(window is not None for window in self.config.window):
            near = distance <= self.windows(key_types)[:, None, None]
            mask = mask & near if mask.dtype == torch.bool else mask.masked_fill(~near, lowest)
        bias = self.bias(query_types, key_types, distance)
        if bias is None:
            return mask
        if mask.dtype == torch.bool:
            return torch.where(mask, bias.to(dtype), lowest)
        return (mask.to(dtype) + bias.to(dtype)).clamp(min=lowest)

    def mask(
        self,
        mask: torch.Tensor,
        types: torch.Tensor,
        queries: torch.Tensor,
        keys: torch.Tensor,
        dtype: torch.dtype,
        boolean: bool,
    ) -> torch.Tensor:
        """`add_to` with types `[B, tokens]` looked up at the positions `queries` `[Q]` and `keys` `[K]`.

        The result is marked, so that a mask that generate() made before the forward is told from one of the user's.
        """
        there = keys.clamp(max=types.shape[1] - 1)  # a static cache has keys to come, which nobody sees
        mask = self.add_to(mask, types[:, queries], types[:, there], queries, keys, dtype)
        if mask.dtype == torch.bool and not boolean:
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        mask = mask.contiguous()
        mask.has_hsa = True  # type: ignore[attr-defined]
        return mask

    def embed(self, embeds: torch.Tensor, types: torch.Tensor | None) -> torch.Tensor:
        """Input embeddings `[B, Q, H]` with the vectors of their types `[B, Q]` added, if there are any."""
        if self.type_table is None:
            return embeds
        if types is None:
            return embeds + self.type_table[GLOBAL].to(embeds.dtype)
        return embeds + nn.functional.embedding(types.long(), self.type_table).to(embeds.dtype)


def write_hsa(hsa: HSA, folder: Path) -> None:
    """Write hsa.json and hsa.safetensors, each atomically."""
    from safetensors.torch import save_file

    # By name and not by state_dict(): with peft, `hsa` is its wrapper round two copies, and passes names on.
    found = {name: getattr(hsa, name) for name in ("pair", "log_scale", "type_table")}
    tensors = {name: value.detach().cpu().contiguous() for name, value in found.items() if value is not None}
    with atomic_path(folder / "hsa.safetensors") as temporary:
        save_file(tensors, temporary)
    write_json(folder / "hsa.json", hsa.config.model_dump(mode="json"))


def read_hsa(folder: Path) -> tuple[HSAConfig, dict[str, torch.Tensor]]:
    """What `write_hsa` wrote; UserError on files that are missing or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return HSAConfig.model_validate(read_json(folder / "hsa.json")), load_file(folder / "hsa.safetensors")
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(f"{folder / 'hsa.json'}: {found}.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / 'hsa.safetensors'}: cannot be read ({error}).") from error


def build_mask(
    impl: str,
    hsa: HSA,
    types: torch.Tensor | None,
    kept: torch.Tensor | None,
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable,
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    use_vmap: bool = False,
    device: Any = "cpu",
    **kwargs: Any,
) -> Any:
    """What stands in for the library's `sdpa_mask` and `eager_mask`, and takes their arguments.

    Args:
        impl: sdpa, eager, gather or flex.
        types: `[B, tokens seen so far]`; None: all GLOBAL.
        kept: `[K]` positions of cached keys, if eviction dropped some.

    Returns:
        `[B, 1 or heads, Q, K]`, or the plan of gather or flex, or just what the library makes if HSA has no effect.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    shared = {
        "batch_size": batch_size, "q_length": q_length, "kv_length": kv_length, "q_offset": q_offset,
        "use_vmap": use_vmap, "dtype": dtype, "device": device, **kwargs,
    }  # fmt: skip
    if kept is None and hsa.leaves_attention_alone(types):
        stock = ALL_MASK_ATTENTION_FUNCTIONS["eager" if impl == "eager" else "sdpa"]
        return stock(**shared, kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask)
    offset = int(q_offset)
    queries = torch.arange(q_length, device=device) + offset
    keys = torch.arange(kv_length, device=device) + kv_offset
    if types is None:
        types = torch.full((batch_size, offset + q_length), GLOBAL, device=device)
    types = types.to(device)
    # Whole sequences only: a step of generation has one query, and dense attention is all it needs.
    whole = kv_offset == offset == 0 and q_length == kv_length > 1 and not use_vmap
    if whole and impl in ("gather", "flex"):
        from qwenlab.hsa import sparse

        plan = sparse.gather_plan if impl == "gather" else sparse.flex_plan
        return plan(hsa, types, mask_function, attention_mask, dtype)
    # A layer with a sliding window keeps its own keys, which start at kv_offset.
    if kept is not None and kv_offset == 0 and kv_length == len(kept) + q_length:
        keys = torch.cat([kept.to(device), queries])
        attention_mask = attention_mask if attention_mask is None else attention_mask[:, keys]
        everywhere, placed = mask_function, keys

        def mask_function(batch_idx, head_idx, q_idx, kv_idx):
            return everywhere(batch_idx, head_idx, q_idx, placed[kv_idx])

    shared |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](
        **shared, kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask
    )
    return hsa.mask(mask, types, queries, keys, dtype, boolean=impl != "eager")
