"""The published sizes, on the meta device: what the full profile will be asked to hold."""

import torch

from qwenlab.core.params import load_profile
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.train import Train
from tests.pipeline_facts import ROOT

# Qwen/Qwen2.5-VL-7B-Instruct, config.json.
TEXT = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
          "fullatt_block_indexes": [7, 15, 23, 31], "patch_size": 14, "window_size": 112}  # fmt: skip


def model():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION))


def test_the_published_model_takes_latents_in_its_hidden_size():
    made = model()
    assert sum(p.numel() for p in made.parameters()) == 8_292_166_656
    assert made.get_input_embeddings().weight.shape == (152064, 3584)
    # The table has room for the five tokens behind 151,665: nothing is resized.
    assert made.get_input_embeddings().weight.shape[0] >= 151665 + 5
    # A latent is a state after the last norm, fed in where an embedding stands.
    assert made.model.language_model.norm.weight.shape == (3584,)
    k, layers = Method.model_validate(load_profile("full", ROOT)["latentcot"]["method"]).latents, 28
    assert (k, layers + 1, made.lm_head.in_features) == (8, 29, 3584)


def test_a_latent_step_has_the_published_shapes():
    made = model().to(torch.bfloat16)
    from transformers import DynamicCache

    cache, steps = DynamicCache(), [5, 1, 3]
    for length in steps:
        out = made.model.language_model(
            inputs_embeds=torch.empty(2, length, 3584, device="meta", dtype=torch.bfloat16),
            position_ids=torch.zeros(3, 2, length, device="meta", dtype=torch.long),
            attention_mask=torch.zeros(
                2, 1, length, cache.get_seq_length() + length, device="meta", dtype=torch.bfloat16
            ),
            past_key_values=cache, use_cache=True, output_hidden_states=True,
        )  # fmt: skip
        assert out.last_hidden_state.shape == (2, length, 3584) and len(out.hidden_states) == 29
    assert cache.get_seq_length() == sum(steps) and cache.layers[0].keys.shape == (2, 4, sum(steps), 128)


def test_the_tower_that_is_frozen_is_the_one_there_is():
    from qwenlab.latentcot.checkpoint import freeze_tower

    made = model()
    assert not hasattr(made, "visual")
    freeze_tower(made)
    frozen = sum(p.numel() for p in made.parameters() if not p.requires_grad)
    assert frozen == sum(p.numel() for p in made.model.visual.parameters()) > 6e8


def test_the_full_profiles_steps_are_the_seeds_epochs():
    section = load_profile("full", ROOT)["latentcot"]
    params = Train.model_validate(section["train"])
    epochs = {stage: steps * params.batch / section["data"]["train"] for stage, steps in params.steps.items()}
    assert epochs == {"stage1-1": 4.0, "stage1-2": 2.0, "stage1-3": 2.0}
