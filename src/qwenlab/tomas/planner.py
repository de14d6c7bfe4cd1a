"""Load a trained planner and let it plan: what evaluation and `qwenlab plan` share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json
from qwenlab.tomas.decoder import HeadConfig, Prediction
from qwenlab.tomas.export import Memory
from qwenlab.tomas.model import FILES, Planner, Runtime, build_decoder, load_backbone, prompts
from qwenlab.tomas.train import known_memory


@dataclass(frozen=True)
class LoadedPlanner:
    """A planner in eval mode over all rows of a memory, new ones appended."""

    planner: Planner
    tokenizer: object
    rows: np.ndarray  # decoder row -> configuration id in the memory

    @torch.no_grad()
    def hidden(self, tasks: list[str], states: np.ndarray, batch: int = 128) -> torch.Tensor:
        """`[M, H]` of tasks with states `[M, 32, 4]`."""
        device = self.planner.decoder.tool_head.weight.device
        parts = []
        for start in range(0, len(tasks), batch):
            inputs = prompts(self.tokenizer, tasks[start : start + batch])
            inputs["states"] = torch.tensor(states[start : start + batch])
            parts.append(self.planner.hidden(**{name: value.to(device) for name, value in inputs.items()}))
        return torch.cat(parts)

    def predict(
        self, hidden: torch.Tensor, free: np.ndarray | None = None, deadline: np.ndarray | None = None, k: int = 1
    ) -> Prediction:
        """As `HierarchicalDecoder.predict`, with configuration ids of the memory; `free` [M, 4], `deadline` [M] ms."""
        device = hidden.device
        found = self.planner.decoder.predict(
            hidden,
            free=None if free is None else torch.tensor(free, dtype=torch.float32, device=device),
            deadline=None if deadline is None else torch.tensor(deadline, dtype=torch.float32, device=device),
            k=k,
        )
        ids = torch.tensor(self.rows, device=device)[found.config_ids.clamp_min(0)]
        ids = ids.masked_fill(found.config_ids < 0, -1)
        return Prediction(found.tool_ids, ids, found.probabilities, found.tool_probabilities)


def load_planner(folder: str | Path, runtime: Runtime, memory: Memory) -> LoadedPlanner:
    """Backbone, adapter and heads; the memory's new rows are appended behind those that training knew.

    Raises:
        UserError: when the folder holds no planner, or one for another memory.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / FILES[0]).is_file():
        raise UserError(f"{folder / FILES[0]}: no such file; `dvc repro tomas-train` trains the planners.")
    facts = read_json(folder / FILES[1])
    if facts.get("backbone") != runtime.model:
        raise UserError(
            f"{folder}: it was trained on the backbone {facts.get('backbone')}; tomas.runtime.model is {runtime.model}."
        )
    head = HeadConfig.model_validate(facts["head"])
    backbone, tokenizer = load_backbone(runtime.model, runtime.dtype, runtime.device)
    known, ids = known_memory(memory)
    planner = Planner(
        PeftModel.from_pretrained(backbone, folder / "adapter"), build_decoder(head, known), queries=facts["queries"]
    )
    state = load_file(folder / FILES[0])
    own = {name: tuple(value.shape) for name, value in planner.state_dict().items() if not name.startswith("backbone.")}
    if {name: tuple(value.shape) for name, value in state.items()} != own:
        rows, wanted = state["decoder.memory"].shape[0], len(ids)
        raise UserError(f"{folder}: it was trained with {rows} configurations; this memory has {wanted} known ones.")
    planner.load_state_dict(state, strict=False)
    planner = planner.to(backbone.device).eval()
    new = np.flatnonzero(memory.new)
    append(planner, head, memory, new)
    return LoadedPlanner(planner, tokenizer, np.concatenate([ids, new]))


def append(planner: Planner, head: HeadConfig, memory: Memory, ids: np.ndarray) -> None:
    """Append configurations of a memory to a planner. Where the head began at random, so do the rows."""
    weights, profile = memory.weights[ids].float(), memory.profile
    if head.init == "random":
        # A generator a row, so that a row does not depend on how many are appended.
        noise = [torch.randn(weights.shape[1], generator=torch.Generator().manual_seed(int(row))) for row in ids]
        spread = memory.weights[~memory.new].float().std()
        weights = planner.decoder.centre.cpu() + spread * torch.stack(noise) if noise else weights
    planner.decoder.append(
        weights,
        torch.tensor(profile.tool_ids[ids]),
        torch.tensor(profile.requests[ids]),
        torch.tensor(profile.latency[ids]),
    )
