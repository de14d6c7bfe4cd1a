"""The hierarchical decoder (seed 002, 2): first the tool, then one of its configurations.

The configuration head's weight *is* the memory: one row a profiled configuration. `cosine` (default) compares
directions: rows are centred and normalised, the hidden state is normalised, and a learned temperature scales the
product. `linear` is the seed's plain `nn.Linear(H, N)`. A configuration that is profiled later is one row more.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from qwenlab.core.params import Params


class HeadConfig(Params):
    """One arm's configuration head.

    memory: the rows come from the export of phase 0; random: from a normal distribution of the same size.
    """

    init: Literal["memory", "random"]
    train_memory: bool
    key_map: bool  # a learned linear map of the rows, the identity at first
    kind: Literal["cosine", "linear"]
    mlp_size: int = Field(ge=0, description="inner size of a residual MLP before both heads; 0 for none")


@dataclass(frozen=True)
class Prediction:
    """Plans of a batch. Where nothing is left to choose from, `config_ids` is -1 and the probability 0."""

    tool_ids: torch.Tensor  # [B]
    config_ids: torch.Tensor  # [B, k], best first
    probabilities: torch.Tensor  # [B, k], among the configurations left
    tool_probabilities: torch.Tensor  # [B]


class HierarchicalDecoder(nn.Module):
    """Tool head [T], configuration head [N].

    Args:
        memory: `[N, H]` rows; with `init: random` only their number and size count.
        tool_ids: `[N]` the tool of every row.
        requests, latency: `[N, 4]` and `[N]`, for masks and ties.
    """

    centre: torch.Tensor
    tool_ids: torch.Tensor
    requests: torch.Tensor
    latency: torch.Tensor

    def __init__(
        self,
        config: HeadConfig,
        memory: torch.Tensor,
        tool_ids: torch.Tensor,
        requests: torch.Tensor,
        latency: torch.Tensor,
        tools: int,
    ):
        super().__init__()
        hidden = memory.shape[1]
        if not len(memory) == len(tool_ids) == len(requests) == len(latency):
            raise ValueError(f"memory has {len(memory)} rows, the table {len(tool_ids)}; expected as many.")
        self.config = config
        self.mlp = None
        if config.mlp_size:
            inner = nn.Sequential(nn.Linear(hidden, config.mlp_size), nn.GELU(), nn.Linear(config.mlp_size, hidden))
            self.mlp = nn.Sequential(nn.LayerNorm(hidden), inner)
        self.tool_head = nn.Linear(hidden, tools)
        self.register_buffer("centre", memory.mean(0))
        rows = memory.clone() if config.init == "memory" else self.centre + memory.std() * torch.randn_like(memory)
        self.memory = nn.Parameter(rows, requires_grad=config.train_memory)
        self.key_map = nn.Linear(hidden, hidden, bias=False) if config.key_map else None
        if self.key_map is not None:
            nn.init.eye_(self.key_map.weight)
        self.bias = nn.Parameter(torch.zeros(len(memory))) if config.kind == "linear" else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("tool_ids", tool_ids)
        self.register_buffer("requests", requests.float())
        self.register_buffer("latency", latency.float())

    @property
    def tool_mask(self) -> torch.Tensor:
        """`[T, N]` which configurations belong to a tool."""
        return self.tool_ids[None] == torch.arange(self.tool_head.out_features, device=self.tool_ids.device)[:, None]

    def keys(self) -> torch.Tensor:
        """`[N, H]` what a hidden state is compared with."""
        rows = self.memory if self.config.kind == "linear" else self.memory - self.centre
        rows = rows if self.key_map is None else self.key_map(rows)
        return rows if self.config.kind == "linear" else nn.functional.normalize(rows, dim=-1)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, H]` -> tool logits `[B, T]`, configuration logits `[B, N]`."""
        hidden = hidden if self.mlp is None else hidden + self.mlp(hidden)
        if self.bias is not None:
            return self.tool_head(hidden), hidden @ self.keys().T + self.bias
        direction = nn.functional.normalize(hidden, dim=-1)
        return self.tool_head(hidden), self.log_scale.exp() * direction @ self.keys().T

    @torch.no_grad()
    def append(self, rows: torch.Tensor, tool_ids: torch.Tensor, requests: torch.Tensor, latency: torch.Tensor) -> None:
        """Add configurations behind those there are: `[M, H]`, `[M]`, `[M, 4]`, `[M]`. Nothing is trained."""
        self.memory = nn.Parameter(torch.cat([self.memory, rows.to(self.memory)]), self.memory.requires_grad)
        if self.bias is not None:
            self.bias = nn.Parameter(torch.cat([self.bias, self.bias.mean().expand(len(rows))]))
        self.tool_ids = torch.cat([self.tool_ids, tool_ids.to(self.tool_ids)])
        self.requests = torch.cat([self.requests, requests.to(self.requests)])
        self.latency = torch.cat([self.latency, latency.to(self.latency)])

    @torch.no_grad()
    def predict(
        self,
        hidden: torch.Tensor,
        tool_mask: torch.Tensor | None = None,
        free: torch.Tensor | None = None,
        deadline: torch.Tensor | None = None,
        k: int = 1,
    ) -> Prediction:
        """Choose the tool, then the best configurations among those that it has and that are allowed.

        Args:
            hidden: `[B, H]`.
            tool_mask: `[T, N]` bool; the decoder's own if not given.
            free: `[B, 4]` what is free; configurations that need more are out.
            deadline: `[B]` ms; slower configurations are out. NaN and infinity are no deadline.
            k: alternatives a task.
        """
        tool_logits, config_logits = self(hidden)
        tools = tool_logits.argmax(-1)
        allowed = (self.tool_mask if tool_mask is None else tool_mask)[tools]
        if free is not None:
            allowed = allowed & (self.requests <= free[:, None]).all(-1)
        if deadline is not None:
            allowed = allowed & ~(self.latency > deadline[:, None])
        logits = config_logits.masked_fill(~allowed, -math.inf)
        # An argmax over nothing but -inf would silently be row 0; ties go to the faster one.
        probabilities = torch.where(allowed, logits.softmax(-1).nan_to_num(0.0), 0.0)
        faster_first = self.latency.argsort(stable=True)
        order = faster_first[logits[:, faster_first].argsort(dim=-1, descending=True, stable=True)[:, :k]]
        there = allowed.gather(1, order)
        return Prediction(
            tools,
            order.masked_fill(~there, -1),
            probabilities.gather(1, order),
            tool_logits.softmax(-1).gather(1, tools[:, None])[:, 0],
        )
