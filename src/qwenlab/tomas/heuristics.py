"""What rules of thumb reach on the held-out tasks when everything is given to them as numbers."""

import statistics
from pathlib import Path

import numpy as np

from qwenlab.core.io import write_json
from qwenlab.core.summary import rounded
from qwenlab.tomas.judging import judge_plan
from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.solver import HEURISTICS, INFORMED, Objective, heuristic_values, plan_by
from qwenlab.tomas.tasks import Capacity, needs_of, read_tasks


def score_heuristics(
    profile: Profile, tasks_dir: str | Path, capacity: Capacity, objective: Objective, path: str | Path
):
    """Write what rules of thumb reach when tool, size, deadline and free resources are given to them as numbers.

    `exact.all` is the best of those that do not know the operator's prices, `informed.exact.all` of those that do.
    """
    tasks, states = read_tasks(tasks_dir, "test")
    needs, values = needs_of(tasks, states, capacity), objective.values(profile, capacity.array())
    scores: dict[str, dict] = {}
    for name, wanted in heuristic_values(profile, objective, capacity.array()).items():
        plans = [plan_by(wanted, profile, need, np.random.default_rng([0, i])) for i, need in enumerate(needs)]
        judged = [
            judge_plan(profile, n, values, t["config_id"], p) for n, t, p in zip(needs, tasks, plans, strict=True)
        ]
        scores[name] = {
            "exact": statistics.fmean(plan == task["config_id"] for plan, task in zip(plans, tasks, strict=True)),
            "valid": statistics.fmean(valid for valid, _ in judged),
            "regret": statistics.fmean(regret for _, regret in judged),
        }
    best = {
        kind: max(scores[name]["exact"] for name in names)
        for kind, names in (("blind", HEURISTICS), ("informed", INFORMED))
    }
    result = {"exact": {"all": best["blind"]}, "informed": {"exact": {"all": best["informed"]}}, "by_rule": scores}
    write_json(path, rounded(result))
