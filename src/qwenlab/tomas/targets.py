"""What the configuration head should say of a task: the reference plan, and how much worse every other plan is.

The seed's label is the one best configuration. It tells nothing of the others: that the next one costs 2% more and a
third would be too late. `SoftTargets` spreads a share of the label over all plans that are valid, by their regret:

    target = (1 - share) onehot(best) + share softmax(-regret / temperature), 0 for what is not valid

(a distillation of the solver; Hinton et al. 2015 call it soft targets). The head then learns to order configurations,
and a row that appears after training finds its place in that order. `share: 0` is the seed's label.
"""

import math

import numpy as np
import torch
from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.solver import Need


class SoftTargets(Params):
    """How much of a label is spread over other valid plans, and how far."""

    share: float = Field(ge=0, le=1)
    temperature: float = Field(gt=0, description="of the relative regret; the lower, the sharper")


class PlanTargets:
    """Targets over the rows of `profile`, worked out a batch at a time.

    Args:
        profile: [N] the configurations that training knows.
        values: `[N]` objective.
        needs: `[M]` what every task asks for.
    """

    def __init__(self, config: SoftTargets, profile: Profile, values: np.ndarray, needs: list[Need]):
        self.config = config
        self.tool_ids, self.sizes = torch.tensor(profile.tool_ids), torch.tensor(profile.resources[:, 0])
        self.requests, self.latency = torch.tensor(profile.requests), torch.tensor(profile.latency)
        self.values = torch.tensor(values)
        self.tools = torch.tensor([need.tool_id for need in needs])
        self.size = torch.tensor([need.size for need in needs])
        self.free = torch.tensor(np.stack([need.free for need in needs]))
        self.deadlines = torch.tensor(
            [math.inf if need.deadline_ms is None else need.deadline_ms for need in needs], dtype=torch.float64
        )

    def regrets(self, indices: list[int]) -> torch.Tensor:
        """`[B, N]` relative regret of every configuration, infinite where it is not valid."""
        fits = (self.tool_ids == self.tools[indices, None]) & (self.sizes == self.size[indices, None])
        fits &= (self.requests <= self.free[indices, None]).all(-1)
        in_time = fits & (self.latency <= self.deadlines[indices, None])
        # When nothing is in time, the fastest one is right: as little late as can be.
        latency = self.latency.masked_fill(~fits, math.inf)
        fastest = fits & (latency == latency.min(1, keepdim=True).values)
        valid = torch.where(in_time.any(1, keepdim=True), in_time, fastest)
        values = self.values.masked_fill(~valid, math.inf)
        best = values.min(1, keepdim=True).values
        return values / best - 1

    def __call__(self, indices: list[int], best: torch.Tensor) -> torch.Tensor:
        """Targets of these tasks: `best` `[B]` itself with share 0, else probabilities `[B, N]`."""
        if not self.config.share:
            return best
        soft = (-self.regrets(indices) / self.config.temperature).softmax(-1)
        hard = torch.nn.functional.one_hot(best, len(self.values))
        return ((1 - self.config.share) * hard + self.config.share * soft).float()
