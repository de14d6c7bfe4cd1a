"""Plan tasks: a sentence and a series of machine states in, a tool and a resource configuration with its numbers out.

The logic of `qwenlab plan`, which tomas/cli.py runs. The planner reads task and state by itself; free resources and a
deadline that are given as numbers are masks on top of it. Whatever it chooses is held against the limits that are
known: free resources come from the state where they are not given, the deadline from the sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwenlab.core.errors import UserError
from qwenlab.tomas.language import duration_in
from qwenlab.tomas.profiling import RESOURCES, Profile
from qwenlab.tomas.tasks import Capacity, free_resources

if TYPE_CHECKING:  # torch is slow to import, and bad input should be answered at once
    from qwenlab.tomas.decoder import Prediction
    from qwenlab.tomas.encoder import ResourceEncoderForPretraining
    from qwenlab.tomas.export import Memory
    from qwenlab.tomas.planner import LoadedPlanner

BATCH = 128  # tasks at a time


@dataclass(frozen=True)
class Request:
    """One task. `state` [32, 4] utilisation; `free` holds the resources that are given as numbers, if any."""

    at: str  # where it comes from, for messages
    task: str
    state: np.ndarray
    free: dict[str, float] | None = None
    deadline_ms: float | None = None
    id: str | int | None = None


@dataclass(frozen=True)
class Limits:
    """What a plan is held against, and where that comes from. `free` [4] as `RESOURCES`."""

    free: np.ndarray
    free_from: list[str]
    deadline_ms: float | None
    deadline_from: str | None


def extend(
    memory: "Memory", extra: Profile, encoder: "ResourceEncoderForPretraining", names: tuple[Path, Path]
) -> "Memory":
    """The memory with more configurations behind its own, as the encoder that it was exported from writes them.

    Args:
        names: the files of `extra` and of `encoder`, for messages.

    Raises:
        UserError: on a configuration that the memory has already, or the encoder of another memory.
    """
    import torch

    from qwenlab.tomas.export import Memory, encode

    ids = {key: index for index, key in enumerate(_keys(memory.profile))}
    for row, key in enumerate(_keys(extra)):
        if key in ids:
            words = ", ".join(map(str, list(extra.row(row).values())[:-1]))
            raise UserError(f"{names[0]}, line {row + 2}: {words} is in the memory already, as config_id {ids[key]}.")
    _check_encoder(encoder, memory, names[1])
    weights = torch.cat([memory.weights, encode(encoder, extra).to(memory.weights)])
    return Memory(weights, memory.profile.extended(extra), np.append(memory.new, np.ones(len(extra), bool)))


def _keys(profile: Profile) -> list[tuple]:
    """(tool, size, four resources) of every configuration: what makes two of them the same."""
    return list(map(tuple, np.column_stack([profile.tool_ids, profile.resources[:, :5]]).tolist()))


def _check_encoder(encoder: "ResourceEncoderForPretraining", memory: "Memory", folder: Path) -> None:
    """Let the encoder write some rows of the memory again: rows of another one would mean nothing to the planner."""
    import torch

    from qwenlab.tomas.export import encode

    profile, tools = memory.profile, len(memory.profile.registry.tools)
    some = np.unique(np.linspace(0, len(profile) - 1, 16).astype(int))
    wanted = memory.weights[some].float()
    same = encoder.get_buffer("tool_embeddings").shape[0] == tools and encoder.config.hidden_size == wanted.shape[1]
    if same:
        again = encode(encoder, Profile(profile.registry, profile.tool_ids[some], profile.resources[some]))
        # Another machine adds up in another order; another training gives other vectors altogether.
        same = bool(torch.allclose(again, wanted, rtol=0, atol=float(0.01 * wanted.std())))
    if not same:
        raise UserError(f"{folder}: this encoder did not write the memory; expected the one that it was exported from.")


def limits_of(request: Request, capacity: Capacity) -> Limits:
    """The limits of a request: those given, the rest from its state and its words."""
    given = request.free or {}
    # Four decimals: 120 * (1 - 0.8) in binary is a little less than 24, which must fit 24.
    state = free_resources(request.state.astype(np.float64), capacity.array()).round(4)
    free = np.array([given.get(name, value) for name, value in zip(RESOURCES, state.tolist(), strict=True)])
    sources = ["given" if name in given else "state" for name in RESOURCES]
    if request.deadline_ms is not None:
        return Limits(free, sources, request.deadline_ms, "given")
    named = duration_in(request.task)
    return Limits(free, sources, named, None if named is None else "task")


def plan(
    loaded: "LoadedPlanner",
    memory: "Memory",
    requests: list[Request],
    capacity: Capacity,
    top_k: int = 1,
    added: int = 0,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[dict]:
    """One answer a request, in their order, ready for JSON.

    Args:
        memory: what `loaded` was loaded with.
        top_k: plans a task; all but the best are its alternatives.
        added: how many configurations of the memory, its last ones, were added; they are marked.
        on_done: called with the number of tasks that are done.
    """
    teller = Teller(memory.profile, capacity.array(), len(memory.profile) - added)
    answers: list[dict] = []
    for start in range(0, len(requests), BATCH):
        part = requests[start : start + BATCH]
        _check_length(loaded, part)
        limits = [limits_of(request, capacity) for request in part]
        hidden = loaded.hidden([request.task for request in part], np.stack([request.state for request in part]))
        free = [np.full(4, np.inf) if r.free is None else limit.free for r, limit in zip(part, limits, strict=True)]
        deadline = [np.inf if request.deadline_ms is None else request.deadline_ms for request in part]
        found = loaded.predict(hidden, np.stack(free), np.array(deadline), top_k)
        alone = loaded.predict(hidden)
        for index, (request, limit) in enumerate(zip(part, limits, strict=True)):
            named: dict = {} if request.id is None else {"id": request.id}
            answers.append({**named, **teller.answer(found, index, limit)})
            if request.free is not None or request.deadline_ms is not None:
                # Masks can leave nothing of the input size that the sentence names. This shows when they did.
                answers[-1]["without_limits"] = next(iter(teller.plans(alone, index, limit)), None)
        on_done(len(answers))
    return answers


def _check_length(loaded: "LoadedPlanner", requests: list[Request]) -> None:
    from qwenlab.tomas.model import prompts

    most = loaded.planner.config.max_position_embeddings - 1  # one place is the state's
    lengths = prompts(loaded.tokenizer, [request.task for request in requests])["attention_mask"].sum(1).tolist()
    for request, length in zip(requests, lengths, strict=True):
        if length > most:
            raise UserError(f"{request.at}: the task has {length} tokens; expected at most {most}, a sentence or two.")


@dataclass(frozen=True)
class Teller:
    """Says what was chosen, with its numbers. `known`: configurations behind these were added.

    Limits are compared in float32, as the decoder masks, so that nothing it allows is called infeasible.
    """

    profile: Profile
    capacity: np.ndarray  # [4] as `RESOURCES`
    known: int

    def answer(self, found: "Prediction", index: int, limits: Limits) -> dict:
        """What was found for one task of a batch: a plan and its alternatives, or why there is none."""
        tool = int(found.tool_ids[index])
        sure = float(f"{found.tool_probabilities[index]:.6g}")
        held = {
            "free": {name: _plain(value) for name, value in zip(RESOURCES, limits.free.tolist(), strict=True)},
            "free_from": dict(zip(RESOURCES, limits.free_from, strict=True)),
            "deadline_ms": None if limits.deadline_ms is None else _plain(limits.deadline_ms),
            "deadline_from": limits.deadline_from,
        }
        plans = self.plans(found, index, limits)
        if not plans:
            name = self.profile.registry.names[tool]
            status = {"status": "no_feasible_config", "tool": name, "tool_probability": sure}
            return {**status, **held, "nearest_miss": self.nearest_miss(tool, limits)}
        best, *others = plans
        order = {"tool_probability": sure, "feasible": best.pop("feasible")}
        return {"status": "ok", **best, **order, **held, "alternatives": others}

    def plans(self, found: "Prediction", index: int, limits: Limits) -> list[dict]:
        """The plans for one task of a batch, best first; places without a configuration (-1) are left out."""
        pairs = zip(found.config_ids[index].tolist(), found.probabilities[index].tolist(), strict=True)
        fits, late = self.fits(limits), self.late(limits)
        return [
            {
                **self.row(config),
                "probability": float(f"{probability:.6g}"),
                "feasible": {
                    "fits_free": bool(fits[config]),
                    "meets_deadline": None if limits.deadline_ms is None else not late[config],
                },
            }
            for config, probability in pairs
            if config >= 0
        ]

    def row(self, config: int) -> dict:
        """What the memory's table says about a configuration."""
        row = self.profile.row(config)
        resources = {name: row[name] for name in RESOURCES}
        told = {"tool": row["tool"], "config_id": config, "input_size": row["input_size"], "resources": resources}
        return {**told, **({"added": True} if config >= self.known else {}), "latency_ms": row["latency_ms"]}

    def fits(self, limits: Limits) -> np.ndarray:
        """[N] bool: needs no more than is free."""
        return np.all(_single(self.profile.requests) <= _single(limits.free), axis=1)

    def late(self, limits: Limits) -> np.ndarray:
        """[N] bool: slower than the deadline, if there is one."""
        deadline = np.inf if limits.deadline_ms is None else limits.deadline_ms
        return np.asarray(_single(self.profile.latency) > _single(deadline))

    def nearest_miss(self, tool: int, limits: Limits) -> dict | None:
        """The configuration of a tool that comes closest to the limits, whatever its input size.

        That is the fastest one of those that fit. When none fits, it is the one whose largest shortfall, as a share of
        the whole machine, is the smallest.
        """
        ids = np.flatnonzero(self.profile.tool_ids == tool)
        if not len(ids):
            return None
        latency = self.profile.latency[ids]
        lacking = (self.profile.requests[ids] - limits.free).clip(0)
        worst = np.where(self.fits(limits)[ids], 0.0, (lacking / self.capacity).max(1))
        first = np.lexsort((ids, latency, worst))[0]
        miss = self.row(int(ids[first]))
        if worst[first] > 0:
            amounts = zip(RESOURCES, lacking[first].tolist(), strict=True)
            miss["lacks"] = {name: _plain(round(amount, 4)) for name, amount in amounts if amount > 0}
        if limits.deadline_ms is not None and self.late(limits)[ids[first]]:
            miss["late_by_ms"] = _plain(float(f"{latency[first] - limits.deadline_ms:.6g}"))
        return miss


def _single(value: np.ndarray | float) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond all numbers is no limit
        return np.asarray(value, np.float32)


def _plain(value: float) -> int | float:
    return int(value) if value.is_integer() else value
