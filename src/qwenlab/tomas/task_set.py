"""Tasks with their labels, and the batches that training makes of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from qwenlab.tomas.model import prompts
from qwenlab.tomas.targets import PlanTargets


@dataclass(frozen=True)
class TaskSet(torch.utils.data.Dataset):
    """Tasks, states `[M, 32, 4]`, and labels `[M]`: tool ids, and rows of the decoder.

    `targets` turns tasks and their rows into what the configuration head learns; by default the rows as they are.
    """

    texts: list[str]
    states: torch.Tensor
    tools: torch.Tensor
    configs: torch.Tensor
    targets: Callable[[list[int], torch.Tensor], torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> int:
        return index  # the collator takes what it needs, in one go


def task_set(tasks: list[dict], states: np.ndarray, rows: np.ndarray, targets: PlanTargets | None = None) -> TaskSet:
    """Tasks with their labels; `rows` are the configuration ids in the decoder's order."""
    row_of = {int(config): row for row, config in enumerate(rows)}
    return TaskSet(
        [task["text"] for task in tasks],
        torch.tensor(states),
        torch.tensor([task["tool_id"] for task in tasks]),
        torch.tensor([row_of[task["config_id"]] for task in tasks]),
        targets,
    )


def collator(data: TaskSet, tokenizer):
    """Indices of a batch -> what `Planner.forward` takes."""

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        best = data.configs[indices]
        return {
            **prompts(tokenizer, [data.texts[index] for index in indices]),
            "states": data.states[indices],
            "tool_labels": data.tools[indices],
            "config_labels": best if data.targets is None else data.targets(indices, best),
        }

    return collate
