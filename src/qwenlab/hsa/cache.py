"""The types of the tokens in a key-value cache, and a cache that forgets what can never be seen again (hsa).

Queries only move away from a key. So a key further from the next query than its window stays out of sight for good,
and dropping it changes no output. Keys carry their rotary position already; the layer below remembers where they stood,
and its length stays the number of tokens seen, so that the library's positions are right.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from qwenlab.core.errors import UserError
from qwenlab.hsa.bias import HSA
from qwenlab.hsa.semantics import check_semantic_ids


@dataclass
class Session:
    """What a generation knows of its tokens' types; they are found by position, so beams need no reordering."""

    decoder: Any  # the text decoder that it is for
    types: torch.Tensor  # [B, L]
    generated: int  # the type of tokens beyond L
    evict: bool
    prompt: int  # tokens of the prompt, L at the start
    started: bool = False

    def at(self, batch: int, total: int, given: torch.Tensor | None = None) -> torch.Tensor:
        """Types `[batch, total]` of all tokens so far; a batch that beams have widened repeats each row.

        Args:
            given: `[batch, n]` types of the newest tokens, from now on remembered.

        Raises:
            UserError: when the prompt is not as long as `semantic_ids`, or the batch is no multiple.
        """
        rows = len(self.types)
        if batch % rows or total < self.prompt or (not self.started and total > self.prompt):
            had = (rows, self.prompt)
            raise UserError(f"The session has semantic_ids of the shape {had}; the input is {batch, total}.")
        self.started = True
        types = self.types[:, :total].repeat_interleave(batch // rows, dim=0)
        types = torch.nn.functional.pad(types, (0, total - types.shape[1]), value=self.generated)
        if given is not None:
            types = torch.cat([types[:, : total - given.shape[1]], given.to(types)], dim=1)
            self.types = types
        return types


class Call(NamedTuple):
    """One forward of a text decoder in progress."""

    decoder: Any
    types: torch.Tensor | None  # [B, tokens so far]; None: all GLOBAL
    kept: torch.Tensor | None  # [K] positions of cached keys, if some were evicted
    outer: "Call | None"


CALL: ContextVar[Call | None] = ContextVar("hsa_call", default=None)
SESSION: ContextVar[Session | None] = ContextVar("hsa_session", default=None)
# Static caches have their masks made before the forward. There, a decoder is known by its config alone.
DECODERS: WeakValueDictionary[int, Any] = WeakValueDictionary()


def session_of(decoder: Any) -> Session | None:
    found = SESSION.get()
    return found if found is not None and found.decoder is decoder else None


def step_types(given: torch.Tensor, batch: int, past: int, length: int) -> torch.Tensor:
    """Checked `semantic_ids` of one forward: of the new tokens `[B, length]` or of all `[B, past + length]`."""
    return check_semantic_ids(given, (batch, length if given.shape[-1:] == (length,) else past + length))


@lru_cache
def evicting_layer() -> Any:
    """The class of the cache layer, made late because transformers is slow to import."""
    from transformers.cache_utils import DynamicLayer

    class EvictingLayer(DynamicLayer):
        """Keys and values `[B, heads, kept, D]` of the tokens at `positions` `[kept]`, among `seen` tokens."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.seen = 0
            self.positions = torch.empty(0, dtype=torch.long)

        def update(self, key_states, value_states, *args, **kwargs):
            length = key_states.shape[-2]
            added = torch.arange(self.seen, self.seen + length, device=key_states.device)
            self.positions = torch.cat([self.positions.to(added.device), added])
            self.seen += length
            return super().update(key_states, value_states, *args, **kwargs)

        def get_seq_length(self, *args) -> int:
            return self.seen

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return len(self.positions) + query_length, 0

        def keep(self, index: torch.Tensor) -> None:
            """Drop all but the keys at `index` `[kept]` of what is cached."""
            self.positions = self.positions[index]
            self.keys = self.keys.index_select(-2, index.to(self.keys.device))  # type: ignore[has-type]
            self.values = self.values.index_select(-2, index.to(self.values.device))  # type: ignore[has-type]

        def reset(self) -> None:
            # Not the library's own, which was written for layers that hold as much as they have seen.
            self.__init__()  # type: ignore[misc]

        def crop(self, *args) -> None:
            raise UserError("A cache with eviction cannot be rolled back: use no assisted decoding, or evict=False.")

    return EvictingLayer


def make_evicting(cache: Any) -> None:
    """Let the full-attention layers of an empty DynamicCache forget; sliding ones do so by themselves.

    Raises:
        UserError: on another cache, or one that already holds keys.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if not isinstance(cache, DynamicCache):
        raise UserError(f"evict=True needs a DynamicCache; this is a {type(cache).__name__}.")
    layer = evicting_layer()
    if any(isinstance(old, layer) for old in cache.layers):
        return
    if cache.get_seq_length():
        raise UserError("evict=True needs a cache that is empty at the start of the session.")
    cache.layers = [layer() if type(old) is DynamicLayer else old for old in cache.layers]
    if getattr(cache, "layer_class_to_replicate", None) is DynamicLayer:
        cache.layer_class_to_replicate = layer  # layers come one by one in a cache made without a config


def evict(cache: Any, hsa: HSA, types: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Drop the keys that no row of the batch can see from its next token on.

    Args:
        types: `[B, total]` of cached and new tokens.
        attention_mask: `[B, total]`, 0 for padding, or anything else: then padding is kept.

    Returns:
        `[kept]` the positions of the cached keys; None while nothing was dropped.
    """
    layers = [layer for layer in cache.layers if isinstance(layer, evicting_layer()) and layer.is_initialized]
    if not layers:
        return None
    seen, positions = layers[0].seen, layers[0].positions.to(types.device)
    gone = seen - positions > hsa.windows(types[:, positions])
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        gone = gone | (attention_mask[:, positions] == 0)
    index = (~gone.all(0)).nonzero()[:, 0]
    if len(index) < len(positions):
        for layer in layers:
            layer.keep(index)
    return positions[index] if len(index) < seen else None
