"""Gram, temporal and total loss."""

import pytest
import torch

from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.guidance import Targets, step_direction, total_loss
from qwenlab.videoedit.losses import VGGStyleExtractor, gram_loss, gram_matrix, resize_to, temporal_loss


def test_a_gram_matrix_is_symmetric_and_forgets_where_things_are():
    features = torch.randn(2, 5, 4, 6)
    gram = gram_matrix(features)
    assert torch.allclose(gram, gram.transpose(1, 2))
    shuffled = features.flatten(2)[:, :, torch.randperm(24)].view(2, 5, 4, 6)
    assert torch.allclose(gram_matrix(shuffled), gram, atol=1e-6)


def test_a_gram_matrix_does_not_grow_with_the_picture():
    features = torch.randn(1, 3, 4, 4)
    assert torch.allclose(gram_matrix(features.repeat(1, 1, 2, 2)), gram_matrix(features), atol=1e-6)


def test_the_style_of_a_picture_is_at_no_distance_from_itself(vgg):
    style, image = VGGStyleExtractor(vgg), torch.rand(1, 3, 32, 48)
    assert gram_loss(style(image), style(image)) == 0
    assert len(style(image)) == 4


def test_the_gram_loss_has_a_gradient_and_the_vgg_has_none(vgg):
    style = VGGStyleExtractor(vgg, size=32)
    image = torch.rand(1, 3, 48, 64, requires_grad=True)
    loss = gram_loss(style(image), style(torch.zeros(1, 3, 48, 64)))
    assert torch.autograd.grad(loss, image)[0].abs().sum() > 0
    assert not any(p.requires_grad for p in style.parameters())


def test_pictures_are_only_ever_shrunk():
    image = torch.rand(1, 3, 40, 60)
    assert resize_to(image, 30).shape[-2:] == (20, 30)
    assert resize_to(image, 100) is image
    assert resize_to(image, None) is image


def test_the_temporal_loss_is_zero_only_without_change():
    image = torch.rand(1, 3, 8, 8)
    assert temporal_loss(image, image) == 0
    assert temporal_loss(image, image.flip(3)) > 0


def test_the_total_is_the_weighted_sum():
    image, edge, previous = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16), torch.rand(1, 3, 16, 16)
    targets, sizes = Targets(edge, previous), LossSizes()
    one, two = (
        total_loss(image, targets, LossGuidanceConfig(**{name: 1.0}), sizes, None)
        for name in ("edge_scale", "temporal_scale")
    )
    both = total_loss(image, targets, LossGuidanceConfig(edge_scale=2.0, temporal_scale=3.0), sizes, None)
    assert both.item() == pytest.approx(2 * one.item() + 3 * two.item(), rel=1e-5)


@pytest.mark.parametrize(("rule", "size"), [("rms", lambda g: g.square().mean().sqrt()), ("l2", torch.Tensor.norm)])
def test_a_normalised_step_has_size_one_whatever_the_gradient(rule, size):
    for scale in (1e-6, 1.0, 1e6):
        direction = step_direction(torch.randn(1, 16, 32) * scale, rule, {})
        assert size(direction).item() == pytest.approx(1.0, rel=1e-3)


def test_adams_first_step_is_the_sign_of_the_gradient():
    gradient = torch.tensor([[3.0, -0.5, 0.001]])
    assert torch.allclose(step_direction(gradient, "adam", {}), gradient.sign(), atol=1e-4)
