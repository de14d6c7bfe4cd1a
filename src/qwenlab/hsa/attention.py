"""Semantic attention for the text towers of Llama, Qwen2, Qwen2-VL, Qwen2.5-VL, Qwen3 and Qwen3-VL (seed 003, 1.1).

    attach(model, PRESETS["published"])                        # or impl="eager", "gather", "flex"
    model(input_ids=ids, semantic_ids=types)                   # types [B, L]; without them, everything is GLOBAL
    with session(model, types, generated=NOISE, evict=True):   # generate() refuses arguments that it does not know
        model.generate(ids)
    detach(model)

Nothing of the model is patched. An attention implementation is registered with transformers together with its mask
function (leaving out the second silently drops padding), a pre-hook of the text decoder takes `semantic_ids` away, and
the mask function adds the bias to the library's own mask, once a forward. So the kernels stay the stock ones, and so
does the vision tower. Parameters are one module, `hsa`, of the text decoder: they train, and are in its state_dict.
With peft, name it in `modules_to_save`. Learned parameters need non-reentrant gradient checkpointing.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qwenlab.core.errors import UserError
from qwenlab.hsa.bias import HSA, PRESETS, HSAConfig, build_mask, read_hsa, write_hsa
from qwenlab.hsa.cache import CALL, DECODERS, SESSION, Call, Session, evict, make_evicting, session_of, step_types
from qwenlab.hsa.semantics import GLOBAL, TYPES, check_semantic_ids
from qwenlab.hsa.sparse import attention_forward

__all__ = ["HSA", "PRESETS", "HSAConfig", "attach", "detach", "load_hsa", "save_hsa", "session"]

IMPLEMENTATIONS = ("sdpa", "eager", "gather", "flex")


def _mask(impl: str, **kwargs: Any) -> Any:
    """The mask function of `hsa_<impl>`, with the library's arguments."""
    call = CALL.get()
    if call is None:
        decoder = DECODERS.get(id(kwargs.get("config")))
        if decoder is None:
            raise UserError("This model is a copy of one with HSA: run it once, or call attach on the copy.")
        running = session_of(decoder)
        total = int(kwargs["q_offset"]) + kwargs["q_length"]
        types = None if running is None else running.at(kwargs["batch_size"], total)
        call = Call(decoder, types, None, None)
    return build_mask(impl, call.decoder.hsa, call.types, call.kept, **kwargs)


def _eager(module: nn.Module, *args: Any, **kwargs: Any):
    """The eager attention of the model's own file."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    for impl in IMPLEMENTATIONS:
        AttentionInterface.register(f"hsa_{impl}", _eager if impl == "eager" else attention_forward)
        AttentionMaskInterface.register(f"hsa_{impl}", partial(_mask, impl))


def _before(decoder: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Pre-hook of the text decoder: take `semantic_ids` away, and know everything about types for this forward."""
    if args:
        kwargs = dict(zip(inspect.signature(decoder.forward).parameters, args, strict=False)) | kwargs
    given = kwargs.pop("semantic_ids", None)
    ids, embeds, cache, mask = (
        kwargs.get(name) for name in ("input_ids", "inputs_embeds", "past_key_values", "attention_mask")
    )
    tokens = embeds if ids is None else ids
    if tokens is None:
        return (), kwargs  # the library has its own words for that
    batch, length = tokens.shape[:2]
    past = 0 if cache is None else int(cache.get_seq_length())
    running, types, kept = session_of(decoder), None, None
    if given is not None:
        types = step_types(given.to(tokens.device), batch, past, length)
    if running is not None:
        types = running.at(batch, past + length, types).to(tokens.device)
        if running.evict and cache is not None:
            make_evicting(cache)
            kept = evict(cache, decoder.hsa, types, mask)
    elif types is not None and types.shape[1] != past + length:
        raise UserError(f"semantic_ids tell {length} types but {past} tokens are cached: use session(), or give all.")
    DECODERS[id(decoder.config)] = decoder  # copies of an attached model come to be known here
    CALL.set(Call(decoder, types, kept, CALL.get()))
    hsa = decoder.hsa
    if hsa.type_table is not None:
        embeds = decoder.embed_tokens(ids) if embeds is None else embeds
        kwargs |= {"input_ids": None, "inputs_embeds": hsa.embed(embeds, None if types is None else types[:, past:])}
    if isinstance(mask, torch.Tensor) and mask.dim() == 4 and not hasattr(mask, "has_hsa"):
        dtype = embeds.dtype if embeds is not None else decoder.embed_tokens.weight.dtype
        kwargs["attention_mask"] = _user_mask(mask, hsa, types, kept, past, length, dtype, decoder)
    return (), kwargs


def _user_mask(mask, hsa: HSA, types, kept, past: int, length: int, dtype: torch.dtype, decoder: Any) -> torch.Tensor:
    """The user's own mask `[B, 1, Q, K]`, which the library would take as it is, with the bias."""
    if kept is None and hsa.leaves_attention_alone(types):
        return mask
    queries = torch.arange(past, past + length, device=mask.device)
    keys = torch.arange(mask.shape[-1], device=mask.device)
    if kept is not None:
        keys = torch.cat([kept.to(mask.device), queries])
        mask = mask[..., keys]
    if types is None:
        types = torch.full((mask.shape[0], past + length), GLOBAL, device=mask.device)
    boolean = decoder.config._attn_implementation != "hsa_eager"
    return hsa.mask(mask, types.to(mask.device), queries, keys, dtype, boolean)


def _after(decoder: Any, args: tuple, output: Any) -> None:
    """Hook of the text decoder, called after errors too: the forward is over."""
    call = CALL.get()
    if call is not None and call.decoder is decoder:
        CALL.set(call.outer)


def _text_decoder(model: nn.Module) -> Any:
    """The module with the embeddings and the layers; UserError if there is not exactly one that takes masks."""
    found = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "layers", None), nn.ModuleList)
        and isinstance(getattr(module, "embed_tokens", None), nn.Module)
        and getattr(module, "_supports_attention_backend", False)
    ]
    name = type(model).__name__
    if len(found) != 1:
        raise UserError(f"{name} has {len(found) or 'no'} text decoders; semantic attention needs one.")
    kinds = set(getattr(found[0].config, "layer_types", None) or []) - {"full_attention", "sliding_attention"}
    if kinds:
        raise UserError(
            f"{name} has layers of the type {', '.join(sorted(kinds))}: semantic attention cannot bias them."
        )
    return found[0]


def _attached(model: nn.Module) -> Any:
    decoder = _text_decoder(model)
    if not hasattr(decoder, "hsa"):
        raise UserError(f"No semantic attention is attached to this {type(model).__name__}.")
    return decoder


def _configs(model: Any, decoder: Any) -> list[Any]:
    """The config of the decoder, and the one that generate() reads, where that is a copy."""
    outer = model.config.get_text_config(decoder=True)
    return [decoder.config] if outer is decoder.config else [decoder.config, outer]


def attach(model: nn.Module, config: HSAConfig, impl: str = "sdpa") -> HSA:
    """Give a model semantic attention, and return the module with its parameters (they start as a no-op).

    Args:
        impl: sdpa, eager (with attention weights), gather (faster for long sequences of NOISE, see `hsa.sparse`),
            flex (GPU only).

    Raises:
        UserError: on an implementation that is unknown, takes no bias or lacks its GPU; a model without one text
            decoder; a model that has HSA already.
    """
    decoder: Any = _text_decoder(model)
    if "flash" in impl:
        raise UserError(f"impl is {impl!r}, but FlashAttention takes no additive mask; use sdpa, gather or flex.")
    if impl not in IMPLEMENTATIONS:
        raise UserError(f"impl is {impl!r}; expected one of {', '.join(IMPLEMENTATIONS)}.")
    if hasattr(decoder, "hsa"):
        raise UserError(f"Semantic attention is attached to this {type(model).__name__} already; detach it first.")
    device = decoder.embed_tokens.weight.device
    if impl == "flex" and device.type != "cuda":
        raise UserError(f"impl is 'flex', but the model is on {device.type}; FlexAttention needs a GPU.")
    _register()
    decoder.hsa = HSA(config, decoder.config.num_attention_heads, decoder.config.hidden_size).to(device)
    hooks = [
        decoder.register_forward_pre_hook(_before, with_kwargs=True),
        decoder.register_forward_hook(_after, always_call=True),
    ]
    configs = _configs(model, decoder)
    decoder.hsa_undo = hooks, [one._attn_implementation for one in configs]
    for one in configs:
        one._attn_implementation = f"hsa_{impl}"
        DECODERS[id(one)] = decoder
    return decoder.hsa


def detach(model: nn.Module) -> None:
    """Take semantic attention and its parameters away again; UserError when there is none."""
    decoder = _attached(model)
    hooks, before = decoder.hsa_undo
    for hook in hooks:
        hook.remove()
    for one, impl in zip(_configs(model, decoder), before, strict=True):
        one._attn_implementation = impl
        DECODERS.pop(id(one), None)
    del decoder.hsa, decoder.hsa_undo


@contextmanager
def session(
    model: nn.Module, semantic_ids: torch.Tensor, generated: int = GLOBAL, evict: bool = False
) -> Iterator[Session]:
    """Types for the forwards inside, whose first input must be as long as `semantic_ids` `[B, L]`.

    Args:
        generated: the type of tokens after those; a forward may still say otherwise with its own `semantic_ids`.
        evict: drop cached keys that are out of everybody's window. Same outputs from a smaller DynamicCache.

    Raises:
        UserError: on bad ids, or a model without HSA.
    """
    decoder = _attached(model)
    if generated not in range(TYPES):
        raise UserError(f"generated is {generated!r}; expected 0 (GLOBAL), 1 (LANDMARK) or 2 (NOISE).")
    if semantic_ids.dim() != 2:
        raise UserError(f"semantic_ids have the shape {tuple(semantic_ids.shape)}; expected [batch, length].")
    check_semantic_ids(semantic_ids, semantic_ids.shape)
    for one in _configs(model, decoder):
        DECODERS[id(one)] = decoder
    running = Session(decoder, semantic_ids, generated, evict, semantic_ids.shape[1])
    token = SESSION.set(running)
    try:
        yield running
    finally:
        SESSION.reset(token)


def save_hsa(model: nn.Module, folder: str | Path) -> None:
    """Write hsa.json and hsa.safetensors, each atomically."""
    write_hsa(_attached(model).hsa, Path(folder))


def load_hsa(model: nn.Module, folder: str | Path, impl: str = "sdpa") -> HSA:
    """`attach` with the settings and parameters that `save_hsa` wrote.

    Raises:
        UserError: see `attach`, and on files that are missing, broken or of another model.
    """
    config, tensors = read_hsa(Path(folder))
    hsa = attach(model, config, impl)
    try:
        hsa.load_state_dict(tensors)
    except RuntimeError as error:
        detach(model)
        raise UserError(f"{Path(folder) / 'hsa.safetensors'}: of another model ({error}).") from error
    return hsa
