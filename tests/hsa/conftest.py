"""Tiny random models of every family that semantic attention is for."""

import copy

import pytest
import torch

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
        vision = dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=4)
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


@pytest.fixture(scope="session")
def models():
    """One untouched model a family."""
    return {family: build(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request, models):
    """A copy to attach to, of every family in turn."""
    return copy.deepcopy(models[request.param])


@pytest.fixture
def qwen2(models):
    return copy.deepcopy(models["qwen2"])


@pytest.fixture(scope="session")
def ids() -> torch.Tensor:
    """Tokens `[2, 20]`, none of them special."""
    return torch.randint(2, 60, (2, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def types() -> torch.Tensor:
    """Their types `[2, 20]`, all three of them in both rows."""
    return torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(2))
