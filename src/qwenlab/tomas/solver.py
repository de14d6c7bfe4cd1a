"""The reference: exact search over the profiled rows, and the heuristics people use instead.

When tool, input size, free resources and deadline are given as numbers, the best row of a table can simply be looked
up: `solve` does, and nothing beats it. The planner earns its place where they come as a sentence and a time series.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from qwenlab.core.params import Params
from qwenlab.tomas.profiling import RESOURCES, Profile

HEURISTICS = ("fastest", "smallest", "cheapest", "random")  # they do not know the operator's prices
INFORMED = ("priced_smallest", "priced_cheapest")  # these do


class Prices(Params):
    """What the whole machine's worth of each resource costs, in any unit."""

    cpu_cores: float = Field(ge=0)
    memory_gb: float = Field(ge=0)
    gpu_sm: float = Field(ge=0)
    gpu_memory_gb: float = Field(ge=0)


class Objective(Params):
    """What a plan should minimise: share^a x latency^b, where share is the priced part of the machine that it takes.

    cost: a = b = 1, the price of the machine time. speed: a = 0, b = 1. weighted: a and b as given.
    """

    kind: Literal["cost", "speed", "weighted"]
    share_weight: float = Field(ge=0)
    latency_weight: float = Field(ge=0)
    prices: Prices

    @model_validator(mode="after")
    def _something_counts(self) -> "Objective":
        if self.kind == "weighted" and self.share_weight == self.latency_weight == 0:
            raise ValueError("share_weight and latency_weight are both 0; expected one above 0")
        if self.kind != "speed" and not any(dict(self.prices).values()):
            raise ValueError("every price is 0; expected one above 0")
        return self

    def share(self, profile: Profile, capacity: np.ndarray) -> np.ndarray:
        """[N] priced share of the machine; `capacity` [4] as `profiling.RESOURCES`."""
        prices = np.array([getattr(self.prices, name) for name in RESOURCES])
        return (profile.requests / capacity * prices).sum(1)

    def values(self, profile: Profile, capacity: np.ndarray) -> np.ndarray:
        """[N] objective of every configuration."""
        weights = {"cost": (1, 1), "speed": (0, 1), "weighted": (self.share_weight, self.latency_weight)}[self.kind]
        return self.share(profile, capacity) ** weights[0] * profile.latency ** weights[1]


@dataclass(frozen=True)
class Need:
    """What a task asks for, as numbers. `free` [4]; no deadline is None."""

    tool_id: int
    size: int
    free: np.ndarray
    deadline_ms: float | None


def fitting(profile: Profile, need: Need, known: np.ndarray | None = None) -> np.ndarray:
    """Ids of the configurations of that tool and input size that fit the free resources, rising.

    Args:
        known: [N] bool, the configurations to look at; all if not given.
    """
    right = (profile.tool_ids == need.tool_id) & (profile.resources[:, 0] == need.size)
    right &= (profile.requests <= need.free).all(1)
    return np.flatnonzero(right if known is None else right & known)


def in_time(profile: Profile, ids: np.ndarray, deadline_ms: float | None) -> np.ndarray:
    """Those of `ids` that meet the deadline; when none does, the fastest of them: as little late as can be."""
    if deadline_ms is None or not len(ids):
        return ids
    good = ids[profile.latency[ids] <= deadline_ms]
    return good if len(good) else ids[profile.latency[ids] == profile.latency[ids].min()]


def best(profile: Profile, ids: np.ndarray, values: np.ndarray) -> int:
    """The lowest value; on a tie the faster one, then the lower id."""
    return int(ids[np.lexsort((ids, profile.latency[ids], values[ids]))[0]])


def solve(profile: Profile, need: Need, values: np.ndarray, known: np.ndarray | None = None) -> int | None:
    """The config id of the best plan, or None when nothing fits. `values` [N] as of `Objective.values`."""
    ids = in_time(profile, fitting(profile, need, known), need.deadline_ms)
    return best(profile, ids, values) if len(ids) else None


def heuristic_values(profile: Profile, objective: Objective, capacity: np.ndarray) -> dict[str, np.ndarray | None]:
    """What each heuristic minimises, [N]; None for the one that guesses."""
    equal, priced = (profile.requests / capacity).sum(1), objective.share(profile, capacity)
    return {
        "fastest": profile.latency,
        "smallest": equal,
        "cheapest": equal * profile.latency,
        "random": None,
        "priced_smallest": priced,
        "priced_cheapest": priced * profile.latency,
    }


def plan_by(values: np.ndarray | None, profile: Profile, need: Need, rng: np.random.Generator) -> int:
    """A heuristic's plan among those that are feasible: the lowest of `values`, or any without them; -1 for none."""
    ids = in_time(profile, fitting(profile, need), need.deadline_ms)
    if not len(ids):
        return -1
    return int(rng.choice(ids)) if values is None else best(profile, ids, values)
