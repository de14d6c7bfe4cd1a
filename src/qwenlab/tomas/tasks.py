"""Tasks for training and judging: a sentence, a series of machine states, and the plan that the reference solver finds.

    <out>/{train,validation,test}.jsonl   one task a line
    <out>/states.safetensors              per split [M, 32, 4] utilisation in [0, 1], in the order of the lines

What is free is `capacity * (1 - highest of the last 8 samples)`; earlier spikes are decoys, so the end of the window
matters. Training tasks are solved over the configurations known then; test tasks over all of them, new ones included.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, read_csv
from qwenlab.core.params import Params
from qwenlab.tomas.language import write_task
from qwenlab.tomas.profiling import RESOURCES, Profile
from qwenlab.tomas.registry import SPLITS
from qwenlab.tomas.solver import Need, Objective, fitting, solve

SAMPLES, RECENT = 32, 8  # length of a state series, and the part that counts for what is free
# Of the capacity: a state in which a resource is nearer than this to a request is not drawn. On a fine grid it is a
# quarter of the smallest step instead, or no state would be left.
MARGIN = 0.03
ROUND = [float(f"{lead}e{power}") for power in range(-3, 11) for lead in (10, 20, 50)]  # ms: to 20 years


class Capacity(Params):
    """The whole machine, in the units of `RESOURCES`."""

    cpu_cores: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    gpu_sm: float = Field(gt=0)
    gpu_memory_gb: float = Field(gt=0)

    def array(self) -> np.ndarray:
        """[4] as `RESOURCES`."""
        return np.array([getattr(self, name) for name in RESOURCES])


class Tasks(Params):
    """How many tasks of which kind."""

    seed: int = Field(ge=0)
    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    no_deadline: float = Field(ge=0, le=1, description="share of tasks without a deadline")
    unattainable: float = Field(ge=0, le=1, description="share of tasks whose deadline nothing meets")


def free_resources(states: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """What is free: `[..., 32, 4]` utilisation -> `[..., 4]` in the units of `capacity`."""
    return capacity * (1 - states[..., -RECENT:, :].max(-2))


def random_states(count: int, rng: np.random.Generator) -> np.ndarray:
    """Series `[count, 32, 4]`: a level, a drift, a wave, noise, and spikes before the recent part; three digits."""
    time = np.arange(SAMPLES)[None, :, None] / SAMPLES
    level, drift, phase = rng.uniform((0.0, -0.25, 0.0), (0.85, 0.25, 1.0), (count, 4, 3))[:, None].transpose(
        3, 0, 1, 2
    )
    states = level + drift * (time - 0.5) + 0.04 * np.sin(2 * np.pi * (3 * time + phase))
    states += 0.02 * rng.standard_normal((count, SAMPLES, 4))
    # Up to two spikes of two samples; they end before the part that counts.
    starts, heights = rng.integers(0, SAMPLES - RECENT - 2, (2, count, 4)), rng.uniform(0.2, 0.6, (2, count, 4))
    for start, height in zip(starts, heights * (rng.random((2, count, 4)) < 0.5), strict=True):
        here = (np.arange(SAMPLES)[None, :, None] - start[:, None]) // 2 == 0
        states += here * height[:, None]
    return states.clip(0, 1).round(3)


def clear_states(requests: np.ndarray, capacity: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless states [32, 4] in which no free resource is so near to a requested amount that noise would decide."""
    levels = [np.unique(requests[:, resource]) for resource in range(4)]
    steps = [np.diff(level).min(initial=np.inf) for level in levels]
    margins = np.minimum(MARGIN * capacity, np.array(steps) / 4)
    missed = 0
    while missed < 1000:
        states = random_states(256, rng)
        free = free_resources(states, capacity)
        good = np.ones(len(states), bool)
        for resource, level in enumerate(levels):
            near = np.abs(free[:, resource, None] - level) < margins[resource]
            good &= ~near.any(1)
        missed = 0 if good.any() else missed + 1
        yield from states[good]
    raise UserError("tomas.capacity: nearly every state is within noise of a request; expected another capacity.")


def _deadline(latency: np.ndarray, params: Tasks, rng: np.random.Generator) -> float | None:
    """A deadline between the fastest and the slowest fitting configuration, none, or one that nothing meets.

    People say round numbers, so deadlines are drawn from `ROUND`.
    """
    kind = rng.random()
    if kind < params.no_deadline:
        return None
    low, high = latency.min(), latency.max()
    if kind < params.no_deadline + params.unattainable:
        late = [value for value in ROUND if 0.3 * low <= value < 0.9 * low]
        return float(rng.choice(late)) if late else None
    wanted = math.exp(rng.uniform(math.log(low), math.log(high)))
    return min((value for value in ROUND if value >= low), key=lambda value: abs(math.log(value / wanted)))


def make_task(
    profile: Profile,
    known: np.ndarray,
    capacity: np.ndarray,
    values: np.ndarray,
    split: str,
    params: Tasks,
    pool: Iterator[np.ndarray],
    rng: np.random.Generator,
) -> tuple[dict, np.ndarray]:
    """One task that has a plan, and its states [32, 4].

    Args:
        known: [N] the configurations to plan with.
        values: [N] objective.
        pool: states to draw from.

    Raises:
        UserError: when next to nothing fits this machine.
    """
    for _ in range(1000):
        tool_id = int(rng.integers(len(profile.registry.tools)))
        size = int(rng.integers(len(profile.registry.input_sizes)))
        states = next(pool)
        need = Need(tool_id, size, free_resources(states, capacity), None)
        ids = fitting(profile, need, known)
        if len(ids):
            break
    else:
        raise UserError("tomas.tasks: in 1000 machine states nothing fitted; expected a larger tomas.capacity.")
    deadline = _deadline(profile.latency[ids], params, rng)
    label = solve(profile, Need(tool_id, size, need.free, deadline), values, known)
    text = write_task(profile.registry, tool_id, size, deadline, split, rng)
    task = {"text": text, "tool_id": tool_id, "size": size, "deadline_ms": deadline, "config_id": label}
    return task, states


def write_tasks(
    profile: Profile, new: np.ndarray, capacity: Capacity, objective: Objective, params: Tasks, out: str | Path
) -> None:
    """Write all three splits; the same files for the same seed. `new` [N] marks configurations unknown in training."""
    from safetensors.numpy import save_file

    machine, values = capacity.array(), objective.values(profile, capacity.array())
    with atomic_dir(out) as folder:
        states = {}
        for number, split in enumerate(SPLITS):
            rng = np.random.default_rng([params.seed, number])
            known = ~new if split == "train" else np.ones(len(profile), bool)
            pool = clear_states(profile.requests, machine, rng)
            made = [
                make_task(profile, known, machine, values, split, params, pool, rng)
                for _ in range(getattr(params, split))
            ]
            lines = [json.dumps(task, ensure_ascii=False) for task, _ in made]
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            states[split] = np.stack([state for _, state in made]).astype(np.float32)
        save_file(states, folder / "states.safetensors")


def read_tasks(folder: str | Path, split: str) -> tuple[list[dict], np.ndarray]:
    """One split: its tasks, and their states [M, 32, 4]."""
    from safetensors.numpy import load_file

    lines = (Path(folder) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], load_file(Path(folder) / "states.safetensors")[split]


def needs_of(tasks: list[dict], states: np.ndarray, capacity: Capacity) -> list[Need]:
    """What every task asks for, as numbers."""
    free = free_resources(states.astype(np.float64), capacity.array())
    return [Need(task["tool_id"], task["size"], free[index], task["deadline_ms"]) for index, task in enumerate(tasks)]


def read_state(path: str | Path) -> np.ndarray:
    """A state series [32, 4] from a CSV with the columns of `RESOURCES`: utilisation in [0, 1], oldest first.

    Raises:
        UserError: naming file, line and value, on wrong columns, another number of rows, or a cell that is no number
            between 0 and 1.
    """
    rows = read_csv(path)
    if not rows:
        raise UserError(f"{path}: no samples; expected a line {','.join(RESOURCES)} and {SAMPLES} samples.")
    found = [name for name in rows[0] if name is not None]
    if sorted(found) != sorted(RESOURCES):
        raise UserError(f"{path}: columns {', '.join(found)}; expected {', '.join(RESOURCES)}.")
    if len(rows) != SAMPLES:
        raise UserError(f"{path}: {len(rows)} samples; expected {SAMPLES}, the oldest first.")
    series = np.empty((SAMPLES, len(RESOURCES)), np.float32)
    for index, row in enumerate(rows):
        for column, name in enumerate(RESOURCES):
            series[index, column] = _share(row[name], f"{path}, line {index + 2}: {name}")
    return series


def _share(text: object, at: str) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:  # NaN compares false
        raise UserError(f"{at} is {text!r}; expected a utilisation between 0 and 1.")
    return value
