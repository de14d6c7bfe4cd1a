"""The training loop of stand-ins that have to learn much in little time: Muon for matrices, AdamW for the rest.

Muon makes every singular value of a step alike (Jordan et al. 2024). Copying, at which AdamW takes three hundred steps,
takes two hundred with it. Otherwise as `loop.fit`: warm-up then cosine, clipped gradients, a progress bar.
"""

import math
from collections.abc import Callable

import torch

from qwenlab.core.progress import progress


def optimisers(model: torch.nn.Module, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between hidden states, AdamW for embeddings, biases and norms."""
    embeddings = {id(p) for part in model.modules() if isinstance(part, torch.nn.Embedding) for p in part.parameters()}
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for weight in model.parameters():
        (matrices if weight.ndim == 2 and id(weight) not in embeddings else others).append(weight)
    return [
        torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def fit_muon(
    model: torch.nn.Module,
    step_loss: Callable[[int], torch.Tensor],
    steps: int,
    lr: float,
    muon_lr: float,
    title: str,
    floor: float = 0.02,
    snapshot: Callable[[], None] | None = None,
    every: int = 50,
) -> None:
    """Minimise `step_loss(step)`.

    Args:
        lr, muon_lr: peak learning rates; they fall on a cosine to `floor` times as much.
        snapshot: called after every 200 steps, to keep what a crash would lose.
        every: prints a line every so many steps, for logs without a terminal.

    Raises:
        FloatingPointError: when the loss becomes non-finite.
    """
    both = optimisers(model, lr, muon_lr)

    def rate(step: int) -> float:
        return min((step + 1) / 20, floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1))))

    schedules = [torch.optim.lr_scheduler.LambdaLR(one, rate) for one in both]
    history: list[float] = []
    with progress() as bar:
        task = bar.add_task(title, total=steps)
        for step in range(steps):
            loss = step_loss(step)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{title}: the loss is {loss.item()} at step {step}.")
            for one in both:
                one.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for one in both:
                one.step()
            for schedule in schedules:
                schedule.step()
            history.append(loss.item())
            if (step + 1) % every == 0 and not bar.console.is_terminal:
                print(f"{title} {step + 1}/{steps} loss {sum(history[-every:]) / every:.4f}", flush=True)
            if snapshot and (step + 1) % 200 == 0:
                snapshot()
            bar.advance(task)
