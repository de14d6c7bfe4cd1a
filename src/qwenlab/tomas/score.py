"""Score planners on held-out tasks, against the reference solver.

Every number is reported twice: unmasked, as the planner reads the task and the state itself (only configurations of
the predicted tool are legal, seed 002, 2), and `masked`, when free resources and deadline are also given as numbers.

- exact: the configuration that the solver chose; seen and new apart (new: unknown to all training)
- valid: right tool and input size, fits the free resources, and meets the deadline if any configuration could
- regret: (objective - best objective) / best objective, mean over valid plans
- ece: expected calibration error of tool probability x configuration probability, ten bins
"""

from pathlib import Path

import numpy as np

from qwenlab.core.io import write_csv, write_json
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import medians, rounded
from qwenlab.tomas.export import Memory
from qwenlab.tomas.judging import COLUMNS, feasible_under, judge_plan, summary
from qwenlab.tomas.model import Runtime
from qwenlab.tomas.planner import LoadedPlanner, load_planner
from qwenlab.tomas.solver import Objective
from qwenlab.tomas.tasks import Capacity, needs_of, read_tasks

TOP = 3  # plans a task that are looked at


def score_planner(loaded: LoadedPlanner, memory: Memory, tasks: list[dict], states: np.ndarray, capacity: Capacity,
                  objective: Objective, seed: int) -> list[dict]:  # fmt: skip
    """One row a task, with the columns of `COLUMNS`."""
    profile, values = memory.profile, objective.values(memory.profile, capacity.array())
    needs = needs_of(tasks, states, capacity)
    hidden = loaded.hidden([task["text"] for task in tasks], states)
    open_plans = loaded.predict(hidden, k=TOP)
    deadline = np.array([np.inf if need.deadline_ms is None else need.deadline_ms for need in needs])
    masked = loaded.predict(hidden, np.stack([need.free for need in needs]), deadline)
    rows = []
    for index, (task, need) in enumerate(zip(tasks, needs, strict=True)):
        best, tool = task["config_id"], int(open_plans.tool_ids[index])
        plans, under = open_plans.config_ids[index].tolist(), int(masked.config_ids[index, 0])
        valid, regret = judge_plan(profile, need, values, best, plans[0])
        masked_valid, masked_regret = judge_plan(profile, need, values, best, under)
        chance = open_plans.probabilities[index, 0] * open_plans.tool_probabilities[index]
        rows.append({
            "seed": seed, "id": index, "new": int(memory.new[best]), "tool_ok": int(tool == task["tool_id"]),
            "exact": int(plans[0] == best), "top3": int(best in plans), "valid": valid, "regret": regret,
            "probability": float(chance), "consistent": int(profile.tool_ids[plans[0]] == tool),
            "masked_exact": int(under == best), "masked_valid": masked_valid,
            "masked_feasible": feasible_under(profile, tool, need, under), "masked_regret": masked_regret,
        })  # fmt: skip
    return rows


def score_arm(arm: str, runtime: Runtime, memory: Memory, tasks_dir: str | Path, capacity: Capacity,
              objective: Objective, planners: str | Path, metrics: str | Path) -> None:  # fmt: skip
    """Write `<arm>.csv` (a row a task and seed) and `<arm>.json` (medians over seeds, and every seed)."""
    seed_everything(0)
    tasks, states = read_tasks(tasks_dir, "test")
    rows: list[dict] = []
    by_seed: dict[str, dict] = {}
    for folder in sorted(Path(planners).glob("seed*"), key=lambda path: int(path.name[4:])):
        seed = int(folder.name[4:])
        loaded = load_planner(folder, runtime, memory)
        here = score_planner(loaded, memory, tasks, states, capacity, objective, seed)
        rows, by_seed[str(seed)] = rows + here, rounded(summary(here))
        print(f"{arm} seed {seed}: {by_seed[str(seed)]}", flush=True)
    shown = [{key: "" if value != value else value for key, value in row.items()} for row in rows]
    write_csv(Path(metrics) / f"{arm}.csv", shown, COLUMNS)
    write_json(Path(metrics) / f"{arm}.json", {**medians(by_seed), "seeds": by_seed})
