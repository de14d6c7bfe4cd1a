"""Vision features, computed once: the tower is frozen, so a picture's tokens never change while the rest learns."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from qwenlab.core.errors import UserError
from qwenlab.latentcot.checkpoint import tower_hash
from qwenlab.latentcot.samples import Rejected, Sample, open_image

FILE = "features.safetensors"


@dataclass(frozen=True)
class Features:
    """Features of many pictures, one after the other.

    values `[tokens, H]`; of picture i they are `values[starts[i] : starts[i + 1]]`, its grid `grids[i]` (t, h, w).
    """

    values: torch.Tensor
    starts: torch.Tensor
    grids: torch.Tensor
    index: dict[str, int]  # key of a picture -> i

    def of(self, key: str) -> torch.Tensor:
        """`[tokens, H]` of one picture."""
        at = self.index[key]
        return self.values[self.starts[at] : self.starts[at + 1]]

    def tokens(self, key: str) -> int:
        at = self.index[key]
        return int(self.starts[at + 1] - self.starts[at])


def picture_key(reference: str) -> str:
    """Short name of a picture's reference."""
    return hashlib.sha256(reference.encode()).hexdigest()[:24]


def encode_images(model, processor, images: list, batch: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """values, starts and grids (see `Features`) of PIL images or `[H, W, 3]` uint8 arrays."""
    values, grids, counts = [], [], []
    merge = processor.image_processor.merge_size**2
    with torch.no_grad():
        for start in range(0, len(images), batch):
            inputs = processor.image_processor(images[start : start + batch], return_tensors="pt")
            grid = inputs["image_grid_thw"]
            out = model.model.get_image_features(
                inputs["pixel_values"].to(model.device), grid.to(model.device)
            ).pooler_output
            values += [one.cpu() for one in out]
            counts += (grid.prod(-1) // merge).tolist()
            grids.append(grid)
    starts = torch.tensor([0, *counts]).cumsum(0)
    return torch.cat(values), starts, torch.cat(grids)


def build(model, processor, samples: list[Sample], folder: Path) -> tuple[Features, list[Sample], list[str]]:
    """Features of every picture of the samples; samples with a bad picture are left out, with a sentence each."""
    merge = processor.image_processor.patch_size * processor.image_processor.merge_size
    images: list = []
    index: dict[str, int] = {}
    kept, rejected = [], []
    for sample in samples:
        new = []
        try:
            for reference in (*sample.pictures, *sample.auxiliary):
                if (key := picture_key(reference)) not in index:
                    new.append((key, open_image(reference, folder, merge)))
        except Rejected as error:
            rejected.append(f"sample {sample.name}: {error}.")
            continue
        for key, image in new:
            if key not in index:
                index[key] = len(images)
                images.append(image)
        kept.append(sample)
    if not kept:
        raise UserError(f"{folder}: no sample with usable images. The first: {rejected[0]}")
    return Features(*encode_images(model, processor, images), index), kept, rejected


def save(features: Features, model, path: Path) -> None:
    """Write features with the hash of the tower that they belong to."""
    from safetensors.torch import save_file

    keys = "\n".join(features.index)  # in the order of their numbers
    tensors = {"values": features.values.half(), "starts": features.starts, "grids": features.grids}
    save_file(tensors, path, metadata={"tower": tower_hash(model), "keys": keys})


def read(path: Path, model) -> Features | None:
    """Cached features, or None when there are none, or they belong to another tower."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
        if facts.get("tower") != tower_hash(model):
            return None
        tensors = {name: file.get_tensor(name) for name in ("values", "starts", "grids")}
    index = {key: number for number, key in enumerate(facts["keys"].split("\n"))}
    return Features(tensors["values"].to(model.dtype), tensors["starts"], tensors["grids"], index)


def cached(model, processor, samples: list[Sample], data: Path) -> tuple[Features, list[Sample], list[str]]:
    """Features from `features.safetensors` beside the data, where they belong to this tower; else made now."""
    found = read(data.with_name(f"{data.stem}.{FILE}"), model)
    if found and all(picture_key(ref) in found.index for s in samples for ref in (*s.pictures, *s.auxiliary)):
        return found, samples, []
    return build(model, processor, samples, data.parent)
