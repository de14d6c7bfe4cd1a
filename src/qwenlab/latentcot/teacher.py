"""Teacher states on disk: hidden states at observations (for stage 1-2) and at latents (for stage 1-3).

One file a sample under the seed's names, read with `weights_only=True`:

    rep_{alignment_layer}_{dataset_name}_{sample_id}.pt      {"metadata_info": {...}, "latent": [layers, tokens, H]}
    latent_{alignment_layer}_{dataset_name}_{sample_id}.pt   the same; [K, H] for the last layer

or, packed, all of them in `teacher.safetensors` under the same names: thousands of small files are slow to hash and
copy. Either is tied to the checkpoint that made it. A file that is missing, of another checkpoint or of another shape
stops the run with its name; nothing is ever cut to fit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, safe_name

Kind = Literal["rep", "latent"]
Layer = Literal["all_layers", "last_layer"]
PACKED = "teacher.safetensors"


def file_name(kind: Kind, layer: Layer, name: str) -> str:
    """The seed's file name; `name` is {dataset_name}_{sample_id}."""
    return safe_name(f"{kind}_{layer}_{name}.pt", "the teacher file")


def write(folder: Path, kind: Kind, layer: Layer, states: Mapping[str, torch.Tensor], checkpoint: str, latents: int,
          packed: bool) -> None:  # fmt: skip
    """Write `[layers, tokens, H]` of every sample; with last_layer only the last one is kept."""
    facts = {"kind": kind, "alignment_layer": layer, "checkpoint": checkpoint, "latents": latents}
    named = {file_name(kind, layer, name): kept(value, kind, layer) for name, value in states.items()}
    if packed:
        from safetensors.torch import save_file

        with atomic_path(folder / PACKED) as temporary:
            save_file(named, temporary, metadata={"facts": json.dumps(facts)})
        return
    for (file, value), name in zip(named.items(), states, strict=True):
        with atomic_path(folder / file) as temporary:
            torch.save({"metadata_info": {**facts, "sample": name}, "latent": value}, temporary)


def kept(value: torch.Tensor, kind: Kind, layer: Layer) -> torch.Tensor:
    """What is stored of `[layers, tokens, H]`: all, or the last layer (`[1, tokens, H]`; latents `[K, H]`)."""
    if layer == "last_layer":
        value = value[-1] if kind == "latent" else value[-1:]
    return value.detach().to("cpu", torch.float16 if value.dtype == torch.float32 else value.dtype).contiguous()


class Teacher:
    """Teacher states of a folder, checked as they are read.

    Args:
        checkpoint: hash of the checkpoint that must have made them.
        latents: K.
    """

    def __init__(self, folder: str | Path, kind: Kind, layer: Layer, checkpoint: str, latents: int):
        self.folder, self.kind, self.layer = Path(folder), kind, layer
        self.checkpoint, self.latents = checkpoint, latents
        self.packed: dict[str, torch.Tensor] = {}
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder of teacher states; expected what precompute-{kind} wrote.")
        file = self.folder / PACKED
        if file.is_file():
            from safetensors import safe_open

            with safe_open(file, "pt") as opened:
                self._check(file, json.loads((opened.metadata() or {}).get("facts", "{}")))
                self.packed = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118

    def _check(self, file: Path, facts: Mapping) -> None:
        wanted = {
            "kind": self.kind,
            "alignment_layer": self.layer,
            "checkpoint": self.checkpoint,
            "latents": self.latents,
        }
        # K changes nothing about the states at observations, which no latent stood before.
        for key, value in wanted.items():
            if facts.get(key) != value and not (key == "latents" and self.kind == "rep"):
                hint = "stale: made with another checkpoint; " if key == "checkpoint" else ""
                raise UserError(f"{file}: {hint}its {key} is {facts.get(key)!r}; expected {value!r}.")

    def __getitem__(self, name: str) -> torch.Tensor:
        """`[layers, tokens, H]` of a sample.

        Raises:
            UserError: when it is missing, stale or malformed.
        """
        file = file_name(self.kind, self.layer, name)
        if self.packed:
            if file not in self.packed:
                raise UserError(f"{self.folder / PACKED}: holds no {file}; run precompute-{self.kind} on this data.")
            value = self.packed[file]
        else:
            value = self._load(self.folder / file)
        return value[None] if self.layer == "last_layer" and value.ndim == 2 else value

    def _load(self, path: Path) -> torch.Tensor:
        try:
            payload = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such teacher file; run precompute-{self.kind} on this data.") from error
        except Exception as error:  # torch raises half a dozen types for a file that is no checkpoint
            raise UserError(f"{path}: cannot be read as a teacher file ({type(error).__name__}).") from error
        if not isinstance(payload, dict) or not isinstance(payload.get("latent"), torch.Tensor):
            raise UserError(f"{path}: has no tensor under 'latent'; expected the keys metadata_info and latent.")
        facts = payload.get("metadata_info")
        self._check(path, facts if isinstance(facts, dict) else {})
        return payload["latent"]

    def check_shape(self, name: str, tokens: int, layers: int, hidden: int) -> None:
        """That a sample's states fit the sample, for all samples before any training.

        Raises:
            UserError: naming the file, its shape and the one expected.
        """
        wanted = (layers if self.layer == "all_layers" else 1, tokens, hidden)
        if tuple(self[name].shape) != wanted:
            raise UserError(
                f"{self.folder / file_name(self.kind, self.layer, name)}: its states are {list(self[name].shape)}; "
                f"expected {list(wanted)} (layers, tokens, hidden size)."
            )
        if not torch.isfinite(self[name]).all():
            raise UserError(f"{self.folder / file_name(self.kind, self.layer, name)}: holds NaN or infinity.")
