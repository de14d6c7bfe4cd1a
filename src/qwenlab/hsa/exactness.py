"""What has to be exact, as numbers: on tiny random models of every family that semantic attention is for.

noop            largest difference from the stock logits with settings that change nothing
leak            largest change of earlier logits when later tokens and types change (published code: 0.4)
far_noise       largest attention to a token of NOISE from beyond its window
left_padding    largest change of logits by padding, and likewise for packing two documents, and for a cache
"""

from typing import Any

import torch

from qwenlab.hsa.attention import PRESETS, HSAConfig, attach, detach, session
from qwenlab.hsa.semantics import LANDMARK, NOISE

FAMILIES = ["llama", "qwen2", "qwen2-sliding", "qwen3", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"]
VOCABULARY = 64


def build(family: str, layers: int = 2, **more):
    """A model with random weights, 4 heads of 8 over 2 key heads, in eval mode."""
    import transformers as t

    torch.manual_seed(0)
    text = dict(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    ) | more  # fmt: skip
    special = dict(image_token_id=60, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63)
    mrope = dict(rope_scaling={"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]})
    if family == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(**text))
    elif family == "qwen2":
        model = t.Qwen2ForCausalLM(t.Qwen2Config(**text))
    elif family == "qwen2-sliding":
        sliding = dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)
        model = t.Qwen2ForCausalLM(t.Qwen2Config(**text, **sliding))
    elif family == "qwen3":
        model = t.Qwen3ForCausalLM(t.Qwen3Config(**text, head_dim=8))
    elif family == "qwen2-vl":
        vision: dict[str, Any] = dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=4)
        config = t.Qwen2VLConfig(text_config=text | mrope, vision_config=vision, **special)
        model = t.Qwen2VLForConditionalGeneration(config)
    elif family == "qwen2.5-vl":
        vision = dict(
            depth=1, hidden_size=16, out_hidden_size=32, num_heads=2, intermediate_size=24, patch_size=4,
            window_size=16, fullatt_block_indexes=[0],
        )  # fmt: skip
        config = t.Qwen2_5_VLConfig(text_config=text | mrope, vision_config=vision, **special)
        model = t.Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision = dict(
            depth=1, hidden_size=16, out_hidden_size=32, num_heads=2, intermediate_size=24, patch_size=4,
            num_position_embeddings=16, deepstack_visual_indexes=[0],
        )  # fmt: skip
        rope = dict(rope_scaling={"rope_type": "default", "mrope_section": [1, 1, 2], "mrope_interleaved": True})
        config = t.Qwen3VLConfig(text_config=text | rope | {"head_dim": 8}, vision_config=vision, **special)
        model = t.Qwen3VLForConditionalGeneration(config)
    # Random weights of this size attend to everything alike; larger ones make masks and biases visible.
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                value.mul_(8)
    return model.eval()


SETTINGS = HSAConfig(slope=(0.0, 0.01, 0.5), window=(None, None, 5), learn_pair=True, learn_scale=True)


@torch.no_grad()
def _logits(model, ids: torch.Tensor, types: torch.Tensor | None = None, **more) -> torch.Tensor:
    more |= {} if types is None else {"semantic_ids": types}
    return model(input_ids=ids, **more).logits


def _positions(model, one: torch.Tensor, rows: int) -> torch.Tensor:
    """Position ids as the family has them: `[B, L]`, or `[rows, B, L]` where images have three kinds."""
    return one.expand(rows, *one.shape) if "vl" in model.config.model_type else one


def _learned(model, impl: str) -> None:
    """Attach with parameters that have moved away from zero."""
    hsa = attach(model, SETTINGS, impl)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in hsa.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def far_noise(impl: str, ids: torch.Tensor) -> float:
    """The attention, in every head of a one-layer model, that queries beyond the window pay to one token of NOISE."""
    model = build("qwen2", layers=1)
    attach(model, SETTINGS, impl)
    types = torch.full_like(ids, LANDMARK)
    types[:, 4] = NOISE
    if impl == "eager":
        weights = model(input_ids=ids, semantic_ids=types, output_attentions=True).attentions[0]
        return weights[:, :, 10:, 4].max().item()
    # The fast kernels give no weights: what a token without weight was, nobody can tell.
    other = ids.clone()
    other[:, 4] = (ids[:, 4] - 1) % 50 + 2
    return (_logits(model, ids, types) - _logits(model, other, types))[:, 10:].abs().max().item()


def measure_family(family: str, impl: str) -> dict[str, float]:
    """Every number of one family with one implementation."""
    ids = torch.randint(2, 60, (2, 20), generator=torch.Generator().manual_seed(1))
    types = torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(2))
    model = build(family)
    if impl == "eager":
        model.set_attn_implementation("eager")
    stock = _logits(model, ids)
    attach(model, PRESETS["noop"], impl)
    found = {"noop": (_logits(model, ids, types) - stock).abs().max().item()}
    detach(model)
    _learned(model, impl)
    base = _logits(model, ids, types)
    others, kinds = ids.clone(), types.clone()
    others[:, 12:], kinds[:, 12:] = ids[:, 12:].flip(1), (types[:, 12:] + 1) % 3
    found["leak"] = (_logits(model, others, kinds) - base)[:, :12].abs().max().item()
    pad = torch.zeros(2, 5, dtype=ids.dtype)
    mask = torch.cat([pad, torch.ones_like(ids)], 1)
    places = _positions(model, (mask.cumsum(1) - 1).clamp(min=0), 3)
    left = _logits(
        model, torch.cat([pad, ids], 1), torch.cat([pad, types], 1), attention_mask=mask, position_ids=places
    )
    found["left_padding"] = (left[:, 5:] - base).abs().max().item()
    apart = torch.cat([_logits(model, ids[:, part], types[:, part]) for part in (slice(0, 8), slice(8, 20))], 1)
    # The first of four rows of positions is the text's: by it documents are told apart.
    places = _positions(model, torch.cat([torch.arange(8), torch.arange(12)]).expand(2, -1), 4)
    packed = _logits(model, ids, types, position_ids=places, attention_mask=None, use_cache=False)
    found["packing"] = (packed - apart).abs().max().item()
    with torch.no_grad(), session(model, types[:, :12]):
        first = model(input_ids=ids[:, :12], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for i in range(12, 20):
            new = {"semantic_ids": types[:, i : i + 1]}
            steps.append(model(input_ids=ids[:, i : i + 1], past_key_values=cache, **new).logits)
    found["cache"] = (torch.cat(steps, 1) - base).abs().max().item()
    return found


def measure(families: tuple[str, ...] = tuple(FAMILIES), impls: tuple[str, ...] = ("sdpa", "eager", "gather")) -> dict:
    """{impl: {number: the worst of all families}} and `worst`, over everything; sdpa alone has to be exact bit by bit
    without effect, so its `noop` stands by itself."""
    from qwenlab.core.summary import rounded

    torch.set_num_threads(1)  # sums in another order differ in the last bits
    found = {}
    for impl in impls:
        each = [measure_family(family, impl) for family in families]
        found[impl] = {name: max(one[name] for one in each) for name in each[0]}
        ids = torch.randint(2, 60, (2, 20), generator=torch.Generator().manual_seed(1))
        found[impl]["far_noise"] = far_noise(impl, ids)
    worst = {name: max(one[name] for one in found.values()) for name in next(iter(found.values()))}
    return rounded({**found, "worst": worst})
