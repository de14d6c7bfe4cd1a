"""The published dimensions, on the meta device: shapes that the guidance relies on, without a byte of weights."""

import pytest
import torch

from qwenlab.core.image_conditioning import working_size
from qwenlab.core.image_vae import decode_latents, enable_image_mode, pack_latents, unpack_latents
from qwenlab.core.params import load_profile
from qwenlab.videoedit.config import LossGuidanceConfig
from qwenlab.videoedit.guidance import callback_inputs
from qwenlab.videoedit.pipeline import checkpoint_decoder


@pytest.fixture(scope="module")
def transformer():
    from diffusers import QwenImageTransformer2DModel

    with torch.device("meta"):
        return QwenImageTransformer2DModel()  # its defaults are the published configuration


@pytest.fixture(scope="module")
def vae():
    from diffusers import AutoencoderKLQwenImage

    with torch.device("meta"):
        return AutoencoderKLQwenImage().requires_grad_(False)


def test_the_transformer_has_the_published_size(transformer):
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(20.4e9, rel=0.01)


def test_packed_latents_at_one_megapixel_fit_the_transformer(transformer):
    width, height = working_size(1280, 720, 1024 * 1024)
    assert (width, height) == (1376, 768)
    latents = torch.empty(1, 16, 1, height // 8, width // 8, device="meta")
    packed = pack_latents(latents)
    assert packed.shape == (1, (height // 16) * (width // 16), transformer.config.in_channels)
    assert unpack_latents(packed, height // 8, width // 8).shape == latents.shape


def test_three_pictures_and_the_prompt_go_through_one_transformer_block(transformer):
    hidden = torch.empty(1, 3 * 4096, 3072, device="meta")
    prompt = torch.empty(1, 512, 3072, device="meta")
    rotary = torch.empty(3 * 4096, 64, dtype=torch.complex64), torch.empty(512, 64, dtype=torch.complex64)
    text, image = transformer.transformer_blocks[0](
        hidden, prompt, None, torch.empty(1, 3072, device="meta"), tuple(r.to("meta") for r in rotary)
    )
    assert (image.shape, text.shape) == (hidden.shape, prompt.shape)


def test_the_loss_decode_gives_pictures_of_eight_times_the_latents(vae):
    latents = torch.empty(1, 16, 1, 100, 148, device="meta")
    assert decode_latents(enable_image_mode(vae), latents).shape == (1, 3, 800, 1184)


def test_the_full_profile_asks_for_the_published_checkpoint_as_the_seed_does(root):
    profile = load_profile("full", root)["videoedit"]
    assert profile["runtime"]["model"] == "Qwen/Qwen-Image-Edit-2509"
    assert profile["runtime"]["dtype"] == "bf16"
    assert (profile["edit"]["num_inference_steps"], profile["edit"]["true_cfg_scale"]) == (50, 4.0)
    size = profile["prepare"]["width"], profile["prepare"]["height"]
    assert working_size(*size, profile["runtime"]["vae_area"]) == size


def test_checkpointed_decoder_blocks_give_the_same_picture_and_gradient():
    from diffusers import AutoencoderKLQwenImage

    torch.manual_seed(0)
    small = AutoencoderKLQwenImage(
        base_dim=8, z_dim=8, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 8, latents_std=[1.0] * 8,
    ).requires_grad_(False)  # fmt: skip
    results = []
    for prepare in (enable_image_mode, checkpoint_decoder):
        prepare(small)
        latents = torch.linspace(-1, 1, 8 * 16).view(1, 8, 1, 4, 4).requires_grad_(True)
        out = decode_latents(small, latents)
        results.append((out, torch.autograd.grad(out.square().sum(), latents)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)
    with torch.no_grad():
        assert small.decode(torch.zeros(1, 8, 1, 4, 4)).sample.shape == (1, 3, 1, 8, 8)


def test_tiled_decoding_still_has_a_gradient():
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=8, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 8, latents_std=[1.0] * 8,
    ).requires_grad_(False)  # fmt: skip
    vae.enable_tiling(16, 16, 12, 12)
    latents = torch.randn(1, 8, 1, 16, 16, requires_grad=True)
    assert torch.autograd.grad(vae.decode(latents).sample.sum(), latents)[0].abs().sum() > 0


def test_the_stock_pipeline_refuses_noise_pred_and_ours_asks_for_nothing_else():
    from diffusers import QwenImageEditPlusPipeline

    assert "noise_pred" not in QwenImageEditPlusPipeline._callback_tensor_inputs
    assert callback_inputs(LossGuidanceConfig()) == ["latents", "noise_pred"]


def test_the_area_rounding_is_the_pipelines_own():
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    for width, height in ((640, 480), (1920, 1080), (300, 700)):
        assert working_size(width, height, 1024 * 1024) == calculate_dimensions(1024 * 1024, width / height)
