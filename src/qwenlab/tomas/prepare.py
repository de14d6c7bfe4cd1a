"""Prepare the profile: the registry, the configurations, and which of them are kept from all training.

<out>/tools.json      the registry
<out>/profiling.csv   one configuration a row; the row number is the configuration id
<out>/new.json        ids of the configurations that appear only after training
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from qwenlab.core.io import atomic_dir, read_json, write_bytes, write_json
from qwenlab.core.params import Params
from qwenlab.tomas.profiling import Profile, read_latency_model, read_profile, simulate, write_profile
from qwenlab.tomas.registry import read_registry


class ProfileParams(Params):
    """How the profile is made."""

    seed: int = Field(ge=0)
    new_share: float = Field(ge=0, lt=1, description="share of configurations kept from all training")


def prepare_profile(params: ProfileParams, registry_file: str | Path, source: str | Path, out: str | Path) -> None:
    """Write the three files from a profiling CSV, or from the JSON of an analytic latency model.

    Raises:
        UserError: see `read_registry`, `read_profile` and `read_latency_model`.
    """
    registry = read_registry(registry_file)
    if Path(source).suffix == ".csv":
        profile = read_profile(source, registry)
    else:
        profile = simulate(read_latency_model(source, registry), registry, params.seed)
    with atomic_dir(out) as folder:
        write_bytes(folder / "tools.json", Path(registry_file).read_bytes())
        write_profile(folder / "profiling.csv", profile)
        write_json(folder / "new.json", {"config_ids": new_ids(profile, params)})


def new_ids(profile: Profile, params: ProfileParams) -> list[int]:
    """The share of every tool's configurations that is kept back, chosen by the seed; never all that a tool has."""
    rng = np.random.default_rng([params.seed, 1])
    chosen: list[int] = []
    for tool_id in range(len(profile.registry.tools)):
        ids = np.flatnonzero(profile.tool_ids == tool_id)
        count = min(round(params.new_share * len(ids)), max(len(ids) - 1, 0))
        chosen += rng.permutation(ids)[:count].tolist()
    return sorted(chosen)


def read_prepared(folder: str | Path) -> tuple[Profile, np.ndarray]:
    """The profile, and [N] bool which configurations are new."""
    folder = Path(folder)
    profile = read_profile(folder / "profiling.csv", read_registry(folder / "tools.json"))
    new = np.zeros(len(profile), bool)
    new[read_json(folder / "new.json")["config_ids"]] = True
    return profile, new
