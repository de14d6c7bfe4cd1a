"""Export the memory (seed 002, 1.4): one vector a profiled configuration, with the tables that say what a row means.

    config_weights.safetensors   `config_weights` [N, H]
    config_lookup.json           row -> tool, input size, resources, latency; the capacity of the machine
    tool_mask_map.json           tool -> its rows

Both tables hold the sha256 of the weights: a table that belongs to other weights is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, read_json, write_json
from qwenlab.tomas.encoder import ResourceEncoderForPretraining
from qwenlab.tomas.profiling import FIELDS, Profile
from qwenlab.tomas.registry import Registry

WEIGHTS, LOOKUP, MASKS = "config_weights.safetensors", "config_lookup.json", "tool_mask_map.json"


@dataclass(frozen=True)
class Memory:
    """What the planner's configuration head is made from."""

    weights: torch.Tensor  # [N, H]
    profile: Profile
    new: np.ndarray  # [N] bool, not known when anything was trained


@torch.no_grad()
def encode(encoder: ResourceEncoderForPretraining, profile: Profile, batch: int = 512) -> torch.Tensor:
    """The memory rows `[N, H]` of all configurations."""
    tools, vectors = torch.tensor(profile.tool_ids), torch.tensor(profile.resources)
    parts = [
        encoder(tools[start : start + batch], vectors[start : start + batch]) for start in range(0, len(tools), batch)
    ]
    return torch.cat(parts).contiguous()


def export(encoder: ResourceEncoderForPretraining, profile: Profile, new: np.ndarray, out: str | Path) -> None:
    """Write the three files."""
    from safetensors.torch import save_file

    with atomic_dir(out) as folder:
        save_file({"config_weights": encode(encoder, profile)}, folder / WEIGHTS)
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        rows = [{**profile.row(index), "new": bool(new[index])} for index in range(len(profile))]
        registry = profile.registry.model_dump()
        write_json(folder / LOOKUP, {"weights_sha256": digest, "registry": registry, "configs": rows})
        masks = {name: np.flatnonzero(profile.tool_ids == i).tolist() for i, name in enumerate(profile.registry.names)}
        write_json(folder / MASKS, {"weights_sha256": digest, "tools": masks})


def read_memory(folder: str | Path) -> Memory:
    """Read an export, checked.

    Raises:
        UserError: when a file is missing, belongs to other weights, or does not describe every row.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: no such file; `dvc repro tomas-export_weights` writes it.")
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    tables = {name: read_json(folder / name) for name in (LOOKUP, MASKS)}
    for name, table in tables.items():
        if table.get("weights_sha256") != digest:
            raise UserError(
                f"{folder / name}: it belongs to other weights (sha256 {str(table.get('weights_sha256'))[:12]}) than "
                f"{WEIGHTS} ({digest[:12]}); export both together."
            )
    weights = load_file(folder / WEIGHTS)["config_weights"]
    lookup = tables[LOOKUP]
    if len(lookup["configs"]) != len(weights):
        raise UserError(f"{folder / LOOKUP}: {len(lookup['configs'])} rows; expected {len(weights)}, one a weight row.")
    registry = Registry.model_validate(lookup["registry"])
    tool_ids, resources = [], []
    for row in lookup["configs"]:
        tool_ids.append(registry.names.index(row["tool"]))
        resources.append([registry.input_sizes.index(row["input_size"]), *(row[name] for name in FIELDS[1:])])
    profile = Profile(registry, np.array(tool_ids), np.array(resources, dtype=np.float64))
    for tool_id, name in enumerate(registry.names):
        if tables[MASKS]["tools"].get(name) != np.flatnonzero(profile.tool_ids == tool_id).tolist():
            raise UserError(f"{folder / MASKS}: tool {name}: its rows are not those of {LOOKUP}; export both together.")
    return Memory(weights, profile, np.array([bool(row.get("new")) for row in lookup["configs"]]))
