"""Image mode of the Qwen-Image autoencoder is exact, and latents travel without loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.image_vae import (
    decode_latents,
    disable_image_mode,
    enable_image_mode,
    encode_images,
    pack_latents,
    unpack_latents,
)


@pytest.fixture(scope="module", params=[[False, False], [False, True, True]], ids=["stand-in", "published"])
def vae(request):
    """A small autoencoder with the temporal layout of the stand-in, and with that of the published one."""
    from diffusers import AutoencoderKLQwenImage

    torch.manual_seed(0)
    layers = len(request.param) + 1
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=8,
        dim_mult=[1, 2, 2, 2][:layers],
        num_res_blocks=1,
        temperal_downsample=request.param,
        latents_mean=[0.1] * 8,
        latents_std=[2.0] * 8,
    ).requires_grad_(False)


def test_image_mode_gives_the_stock_result_for_one_frame(vae):
    picture, latents = torch.rand(1, 3, 1, 32, 48) * 2 - 1, torch.randn(1, 8, 1, 4, 6)
    disable_image_mode(vae)
    stock = vae.encode(picture).latent_dist.mode(), vae.decode(latents).sample
    enable_image_mode(vae)
    assert torch.allclose(vae.encode(picture).latent_dist.mode(), stock[0], atol=1e-5)
    assert torch.allclose(vae.decode(latents).sample, stock[1], atol=1e-5)


def test_image_mode_gives_the_stock_gradient(vae):
    gradients = []
    for mode in (disable_image_mode, enable_image_mode):
        latents = torch.linspace(-1, 1, 8 * 24).view(1, 8, 1, 4, 6).requires_grad_(True)
        gradients.append(torch.autograd.grad(mode(vae).decode(latents).sample.square().sum(), latents)[0])
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5)


def test_image_mode_leaves_videos_as_they_were(vae):
    video = torch.rand(1, 3, 5, 32, 32)
    stock = disable_image_mode(vae).encode(video).latent_dist.mode()
    # Its first frame is encoded alone, so it takes the 2-D path: equal up to rounding, not to the bit.
    assert torch.allclose(enable_image_mode(vae).encode(video).latent_dist.mode(), stock, atol=1e-5)


def test_decoding_for_losses_equals_the_pipeline_but_does_not_clamp(vae):
    enable_image_mode(vae)
    latents = torch.randn(1, 8, 1, 4, 6) * 3
    ours = decode_latents(vae, latents)
    theirs = vae.decode(latents * 2.0 + 0.1).sample[:, :, 0] / 2 + 0.5
    assert torch.allclose(ours.clamp(0, 1), theirs, atol=1e-5)


def test_encoded_latents_are_normalised_by_the_config(vae):
    picture = torch.rand(2, 3, 32, 32)
    raw = vae.encode((picture * 2 - 1).unsqueeze(2)).latent_dist.mode()
    assert torch.allclose(encode_images(vae, picture), (raw - 0.1) / 2.0, atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 8))
def test_unpacking_undoes_packing_and_matches_the_pipeline(batch: int, rows: int, columns: int, channels: int):
    from diffusers import QwenImageEditPlusPipeline as Pipeline

    height, width = 2 * rows, 2 * columns
    latents = torch.randn(batch, channels, 1, height, width)
    packed = pack_latents(latents)
    assert torch.equal(packed, Pipeline._pack_latents(latents, batch, channels, height, width))
    assert torch.equal(unpack_latents(packed, height, width), latents)
    assert torch.equal(Pipeline._unpack_latents(packed, height * 4, width * 4, 4), latents)
