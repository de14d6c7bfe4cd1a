"""Encoded samples as one batch whose latent columns align, and the attention mask of a stage.

Every sample is cut at its latent blocks. Each piece of text is padded on the left to the longest of the batch, so
that block j stands in the same K columns for all, and the step before it, whose hidden state is the first latent,
in the column before. A sample with fewer blocks has padding where its first ones would be.

    sample a   . t t t  z z  t t        t: a token, z: a latent, .: padding
    sample b   t t t t  z z  . t
"""

from typing import Any

import torch

from qwenlab.latentcot.encode import Encoded
from qwenlab.latentcot.features import Features


def pieces(sample: Encoded, latents: int) -> list[tuple[int, int]]:
    """(start, end) of the text before, between and after the latent blocks.

    Raises:
        ValueError: when a block has not `latents` pads (another K than the data was encoded with).
    """
    where = sample.latent.nonzero()[:, 0].tolist()
    if latents == 0 or not where:
        return [(0, len(sample.ids))]
    blocks = [where[i : i + latents] for i in range(0, len(where), latents)]
    if any(block != list(range(block[0], block[0] + latents)) for block in blocks):
        raise ValueError(f"sample {sample.name}: its latent pads come in other numbers than K = {latents}.")
    starts = [0, *(block[-1] + 1 for block in blocks)]
    ends = [*(block[0] for block in blocks), len(sample.ids)]
    return list(zip(starts, ends, strict=True))


def columns(samples: list[Encoded], latents: int) -> tuple[list[torch.Tensor], int, list[int]]:
    """The column of every token of every sample, the width, and the first column of every latent block."""
    cut = [pieces(sample, latents) for sample in samples]
    most = max(map(len, cut))
    widths = [0] * most
    for parts in cut:
        for index, (start, end) in enumerate(parts, most - len(parts)):
            widths[index] = max(widths[index], end - start)
    offsets, blocks, at = [], [], 0
    for index, width in enumerate(widths):
        offsets.append(at)
        at += width
        if index < most - 1:
            blocks.append(at)
            at += latents
    placed = []
    for parts in cut:
        found: list[torch.Tensor] = []
        for index, (start, end) in enumerate(parts, most - len(parts)):
            last = offsets[index] + widths[index]
            found.append(torch.arange(last - (end - start), last))
            if index < most - 1:
                found.append(torch.arange(blocks[index], blocks[index] + latents))
        placed.append(torch.cat(found))
    return placed, at, blocks


def attention(there: torch.Tensor, latent: torch.Tensor, auxiliary: torch.Tensor, hide: bool) -> torch.Tensor:
    """`[B, S, S]` bool, True where a query (row) sees a key (column), of `[B, S]` bool facts.

    Causal among the tokens that are there. With `hide` (stage 1-2) tokens of auxiliary images are seen by latents
    and by each other only, so that whatever an observation knows of them came through the latents. A row of padding
    sees itself: a row without any key would be NaN.
    """
    size = there.shape[1]
    seen = torch.ones(size, size, dtype=torch.bool, device=there.device).tril()[None] & there[:, None, :]
    if hide:
        seen = seen & (~auxiliary[:, None, :] | latent[:, :, None] | auxiliary[:, :, None])
    return seen | torch.eye(size, dtype=torch.bool, device=there.device)[None]


class Collator:
    """Batches for `latents.run`.

    Args:
        latents: K where the form has latents that are fed back, else 0 (`pause`: pads are ordinary tokens).
        hide: whether the auxiliary image is hidden from all but latents (stage 1-2).
        teacher: name -> teacher tensor `[layers, tokens, H]`, if there is one.
    """

    def __init__(self, features: Features, pad: int, latents: int, hide: bool, teacher=None):
        self.features, self.pad, self.latents, self.hide, self.teacher = features, pad, latents, hide, teacher

    def __call__(self, samples: list[Encoded]) -> dict[str, Any]:
        """ids, weight, observed, latent `[B, S]`, positions `[3, B, S]`, mask `[B, S, S]`, features `[images, H]`,
        blocks (first columns), and teacher `[layers, all tokens, H]`."""
        placed, width, blocks = columns(samples, self.latents)
        shape = (len(samples), width)
        ids = torch.full(shape, self.pad)
        weight, positions = torch.zeros(shape), torch.zeros(3, *shape, dtype=torch.long)
        there, latent, auxiliary, observed = (torch.zeros(shape, dtype=torch.bool) for _ in range(4))
        for row, (sample, at) in enumerate(zip(samples, placed, strict=True)):
            ids[row, at], weight[row, at], there[row, at] = sample.ids, sample.weight, True
            latent[row, at], auxiliary[row, at], observed[row, at] = sample.latent, sample.auxiliary, sample.observed
            positions[:, row, at] = sample.positions
        keys = [key for sample in samples for key in sample.pictures]
        batch = {
            "ids": ids, "weight": weight, "observed": observed, "latent": latent, "positions": positions,
            "mask": attention(there, latent, auxiliary, self.hide), "blocks": torch.tensor(blocks, dtype=torch.long),
            "features": torch.cat([self.features.of(key) for key in keys]) if keys else torch.zeros(0, 1),
        }  # fmt: skip
        if self.teacher is not None:
            batch["teacher"] = torch.cat([self.teacher[sample.name] for sample in samples], 1)
        return batch
