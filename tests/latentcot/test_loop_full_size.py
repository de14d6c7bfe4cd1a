"""The published image models of the loop, on the meta device: real shapes without a byte of weights."""

import pytest
import torch

from qwenlab.core.image_vae import decode_latents, enable_image_mode, pack_latents
from qwenlab.core.params import load_profile
from qwenlab.latentcot.drawing import Images


@pytest.fixture(scope="module")
def images(root) -> Images:
    return Images(**load_profile("full", root)["latentcot"]["images"])


@pytest.fixture(scope="module")
def transformer():
    from diffusers import QwenImageTransformer2DModel

    with torch.device("meta"):
        return QwenImageTransformer2DModel()  # its defaults are the published configuration


def test_the_full_profile_names_the_published_checkpoints(images):
    assert images.draw_model == "Qwen/Qwen-Image"
    assert images.edit_model == "Qwen/Qwen-Image-Edit-2509"
    assert (images.dtype, images.steps, images.cfg) == ("bf16", 50, 4.0)


def test_the_size_of_the_full_profile_packs_into_whole_tokens(images, transformer):
    latents = torch.empty(1, 16, 1, images.height // 8, images.width // 8, device="meta")
    packed = pack_latents(latents)
    assert packed.shape == (1, 83 * 83, transformer.config.in_channels)


def test_the_published_autoencoder_decodes_that_size(images):
    from diffusers import AutoencoderKLQwenImage

    with torch.device("meta"):
        vae = enable_image_mode(AutoencoderKLQwenImage())
    latents = torch.empty(1, vae.config.z_dim, 1, images.height // 8, images.width // 8, device="meta")
    assert decode_latents(vae, latents).shape == (1, 3, images.height, images.width)


def test_a_draft_and_the_picture_drawn_go_through_one_block_of_the_editor(transformer):
    hidden, prompt = torch.empty(1, 6889 + 4096, 3072, device="meta"), torch.empty(1, 400, 3072, device="meta")
    rotary = tuple(torch.empty(n, 64, dtype=torch.complex64, device="meta") for n in (6889 + 4096, 400))
    text, image = transformer.transformer_blocks[0](hidden, prompt, None, torch.empty(1, 3072, device="meta"), rotary)
    assert (image.shape, text.shape) == (hidden.shape, prompt.shape)


def test_prompt_embeddings_of_the_published_text_encoder_fit_the_transformer(transformer):
    from transformers import Qwen2_5_VLConfig

    assert transformer.config.joint_attention_dim == 3584
    config = Qwen2_5_VLConfig(text_config={"hidden_size": 3584}, vision_config={"out_hidden_size": 3584})
    assert config.text_config.hidden_size == config.vision_config.out_hidden_size == 3584
