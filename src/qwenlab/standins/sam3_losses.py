"""Losses of the SAM3 stand-in: what patches see, and what queries find."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

from qwenlab.standins.sam3_data import PATCH, Scenes, patch_targets
from qwenlab.thinkseg.vocabulary import COLORS, SHAPES


class Sight(nn.Module):
    """Throw-away heads on the vision features: colour, shape and box of the thing at every patch.

    Without them the vision tower never learns to tell shapes apart, and no prompt can ask it to.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.patch = nn.Linear(hidden, len(COLORS) + 1 + len(SHAPES) + 1)  # the last class of each: background
        self.thing = nn.Linear(hidden, len(COLORS) + len(SHAPES))
        self.box = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4))
        self.fusion = nn.Linear(hidden, 1)  # whether a patch is what the prompt asks for, after the DETR encoder

    def losses(self, features: torch.Tensor, scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Classification, box L1, and how many of the things have the right shape.

        Args:
            features: of the patches, `[B, 64, H]`.
        """
        index, boxes = patch_targets(scenes)
        there = index >= 0
        looks = torch.stack([own[which.clamp_min(0)] for own, which in zip(scenes.looks, index, strict=True)])
        color = torch.where(there, looks // len(SHAPES), len(COLORS))
        shape = torch.where(there, looks % len(SHAPES), len(SHAPES))
        by_color, by_shape = self.patch(features).split([len(COLORS) + 1, len(SHAPES) + 1], -1)
        classes = F.cross_entropy(by_color.flatten(0, 1), color.flatten())
        classes = classes + F.cross_entropy(by_shape.flatten(0, 1), shape.flatten())
        pooled = []
        for masks, own in zip(scenes.masks, features, strict=True):
            cover = F.avg_pool2d(masks[None], PATCH)[0].flatten(1)
            pooled.append(cover / cover.sum(1, keepdim=True).clamp_min(1e-6) @ own)
        by_color, by_shape = self.thing(torch.cat(pooled)).split([len(COLORS), len(SHAPES)], -1)
        every = torch.cat(scenes.looks)
        classes = classes + F.cross_entropy(by_color, every // len(SHAPES))
        classes = classes + F.cross_entropy(by_shape, every % len(SHAPES))
        distance = (self.box(features).sigmoid() - boxes).abs().sum(-1)
        right = (by_shape.argmax(-1) == every % len(SHAPES)).float().mean()
        return classes, distance[there].mean(), right


def match(
    logits: torch.Tensor, boxes: torch.Tensor, targets: Sequence[torch.Tensor]
) -> list[tuple[list[int], list[int]]]:
    """For each prompt the cheapest pairing of queries and targets (exact): `[P, Q]`, `[P, Q, 4]`, P times `[N, 4]`."""
    most = max(len(own) for own in targets)
    padded = torch.stack([F.pad(own, (0, 0, 0, most - len(own)), value=0.5) for own in targets])  # [P, most, 4]
    distance = (boxes[:, :, None] - padded[:, None]).abs().sum(-1)
    pairs = torch.broadcast_tensors(
        box_convert(boxes, "cxcywh", "xyxy")[:, :, None], box_convert(padded, "cxcywh", "xyxy")[:, None]
    )
    overlap = 1 - generalized_box_iou_loss(*(side.flatten(0, 2) for side in pairs)).view_as(distance)
    costs = (5 * distance - 2 * overlap - 2 * logits.sigmoid()[..., None]).detach().numpy()
    found = [linear_sum_assignment(cost[:, : len(own)]) for cost, own in zip(costs, targets, strict=True)]
    return [(queries.tolist(), things.tolist()) for queries, things in found]


def query_loss(
    logits: torch.Tensor, boxes: torch.Tensor, presence: torch.Tensor, targets: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, list[tuple[list[int], list[int]]]]:
    """2 score BCE + 2 presence BCE + 5 L1 + 2 GIoU of one decoder layer, and the pairs it is about.

    Args:
        logits: `[P, Q]`, boxes `[P, Q, 4]` cxcywh, presence `[P]` logits.
        targets: boxes of what each prompt asks for, `[N, 4]`; none where it fits nothing.
    """
    pairs = match(logits, boxes, targets)
    wanted = torch.zeros_like(logits)
    for i, (queries, _) in enumerate(pairs):
        wanted[i, queries] = 1
    there = torch.tensor([float(len(own) > 0) for own in targets])
    scores = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor(2.0), reduction="none")
    loss = 2 * (scores.mean(1) * (0.5 + 0.5 * there)).mean() + 2 * F.binary_cross_entropy_with_logits(presence, there)
    found = torch.cat([boxes[i, queries] for i, (queries, _) in enumerate(pairs)])
    truth = torch.cat([own[things] for own, (_, things) in zip(targets, pairs, strict=True)])
    if len(found):
        distance = (found - truth).abs().sum(-1).mean()
        corners = (box_convert(found, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"))
        loss = loss + 5 * distance + 2 * generalized_box_iou_loss(*corners, reduction="mean")
    return loss, pairs


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """5 BCE + 2 dice of matched masks `[M, h, w]` against soft ones."""
    probability = logits.sigmoid().flatten(1)
    flat = truth.flatten(1)
    dice = 1 - (2 * (probability * flat).sum(1) + 1) / (probability.sum(1) + flat.sum(1) + 1)
    return 5 * F.binary_cross_entropy_with_logits(logits, truth) + 2 * dice.mean()
