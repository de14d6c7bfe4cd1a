"""Encoded samples as prompts for `decode.generate`: the turns before the answer, padded on the left."""

import torch

from qwenlab.latentcot.encode import Encoded
from qwenlab.latentcot.features import Features


def prompts(samples: list[Encoded], features: Features, pad: int, device="cpu") -> dict[str, torch.Tensor]:
    """ids, mask `[B, S]`, positions `[3, B, S]`, features of the user's pictures."""
    width = max(sample.prompt for sample in samples)
    ids = torch.full((len(samples), width), pad)
    mask, positions = torch.zeros_like(ids), torch.zeros(3, *ids.shape, dtype=torch.long)
    shown = []
    for row, sample in enumerate(samples):
        at = slice(width - sample.prompt, width)
        ids[row, at], mask[row, at] = sample.ids[: sample.prompt], 1
        positions[:, row, at] = sample.positions[:, : sample.prompt]
        shown += [features.of(key) for key in sample.pictures[: sample.asked]]
    found = {
        "ids": ids, "mask": mask, "positions": positions,
        "features": torch.cat(shown) if shown else torch.zeros(0, 1),
    }  # fmt: skip
    return {name: value.to(device) for name, value in found.items()}
