"""The one small training loop of the stand-ins: AdamW, warm-up then cosine, gradient clipping, a progress bar."""

import math
from collections.abc import Callable, Iterable

import torch

from qwenlab.core.progress import progress


def fit(
    parameters: Iterable[torch.nn.Parameter],
    step_loss: Callable[[int], torch.Tensor],
    steps: int,
    lr: float,
    title: str,
    warmup: int = 20,
    floor: float = 0.02,
    log_every: int = 50,
) -> float:
    """Minimise `step_loss(step)` and return the mean loss of the last tenth of the steps.

    Args:
        lr: peak learning rate; it falls on a cosine to `floor * lr`.
        log_every: prints a line every so many steps, for logs without a terminal.

    Raises:
        FloatingPointError: when the loss becomes non-finite.
    """
    parameters = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warmup, floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(s / steps, 1)))),
    )
    history: list[float] = []
    with progress() as bar:
        task = bar.add_task(title, total=steps)
        for step in range(steps):
            loss = step_loss(step)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{title}: the loss is {loss.item()} at step {step}.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            history.append(loss.item())
            if (step + 1) % log_every == 0:
                recent = sum(history[-log_every:]) / log_every
                bar.update(task, description=f"{title} (loss {recent:.4f})")
                if not bar.console.is_terminal:
                    print(f"{title} {step + 1}/{steps} loss {recent:.4f}", flush=True)
            bar.advance(task)
    tail = history[-max(1, steps // 10) :]
    return sum(tail) / len(tail)
