"""The shared Sobel and Laplacian."""

import itertools

import pytest
import torch

from qwenlab.core.edges import edge_loss, edges, laplacian_edges, sobel_edges, to_gray
from qwenlab.core.media import to_image, to_tensor


@pytest.mark.parametrize("kind", ["sobel", "laplacian"])
def test_no_patch_makes_an_edge_above_one(kind):
    patches = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3)
    centre = edges(patches, kind)[:, 0, 1, 1]
    assert centre.max() == 1.0


def test_ordinary_edges_are_not_clipped_and_hard_ones_are():
    """A step of 0.3 stays proportional; a step from black to white saturates."""
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1.0
    assert sobel_edges(step * 0.3).max().item() == pytest.approx(0.3 * 4 * 0.5, abs=1e-3)
    assert sobel_edges(step).max() == 1.0


@pytest.mark.parametrize("kind", ["sobel", "laplacian"])
def test_a_flat_picture_has_no_edges_not_even_at_its_border(kind):
    assert edges(torch.full((1, 3, 8, 8), 0.7), kind).abs().max() < 1e-6


@pytest.mark.parametrize("filter_", [sobel_edges, laplacian_edges])
def test_the_gradient_is_finite_on_flat_pictures_and_alive_on_others(filter_):
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(filter_(flat).mean(), flat)[0]).all()
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert torch.autograd.grad(filter_(image).mean(), image)[0].abs().sum() > 0


def test_pixels_outside_zero_to_one_still_have_a_gradient():
    image = (torch.rand(1, 3, 8, 8) + 1.5).requires_grad_(True)
    assert torch.autograd.grad(edge_loss(image, torch.zeros(1, 1, 8, 8)), image)[0].abs().sum() > 0


def test_a_picture_matches_its_own_stored_edges_to_the_rounding_of_eight_bits():
    image = torch.rand(1, 3, 16, 24)
    stored = to_tensor(to_image(sobel_edges(image)))[:, :1]
    assert edge_loss(image, stored) <= 0.5 / 255


def test_a_target_of_another_size_is_resized_to_the_picture():
    image = torch.rand(1, 3, 16, 24)
    assert torch.isfinite(edge_loss(image, torch.rand(1, 1, 32, 48)))


def test_luma_weights_add_up_to_one():
    assert to_gray(torch.ones(1, 3, 2, 2)).max() == pytest.approx(0.9999, abs=2e-4)
