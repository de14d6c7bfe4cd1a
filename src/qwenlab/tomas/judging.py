"""How a plan is judged against the reference solver, and what is made of many judged plans."""

import statistics

import numpy as np

from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.solver import Need, fitting, in_time

COLUMNS = (
    "seed", "id", "new", "tool_ok", "exact", "top3", "valid", "regret", "probability", "consistent",
    "masked_exact", "masked_valid", "masked_feasible", "masked_regret",
)  # fmt: skip
BINS = 10  # of the calibration


def judge_plan(profile: Profile, need: Need, values: np.ndarray, best: int, plan: int) -> tuple[int, float]:
    """(valid, regret) of a plan; the regret of a plan that is not valid is NaN. -1 is no plan."""
    legal = in_time(profile, fitting(profile, need), need.deadline_ms)
    if plan not in legal:
        return 0, float("nan")
    return 1, float((values[plan] - values[best]) / values[best])


def feasible_under(profile: Profile, tool: int, need: Need, plan: int) -> int:
    """1 when a masked plan keeps free resources and deadline, or rightly says that no row of that tool does."""
    limit = np.inf if need.deadline_ms is None else need.deadline_ms
    fits = (profile.requests <= need.free).all(1) & (profile.latency <= limit) & (profile.tool_ids == tool)
    return int(fits[plan] if plan >= 0 else not fits.any())


def calibration(rows: list[dict]) -> list[tuple[float, float, int]]:
    """(mean probability, share exact, count) of every bin of equal width that has a plan in it."""
    bins: list[list[dict]] = [[] for _ in range(BINS)]
    for row in rows:
        bins[min(int(float(row["probability"]) * BINS), BINS - 1)].append(row)
    return [
        (
            statistics.fmean(float(r["probability"]) for r in one),
            statistics.fmean(float(r["exact"]) for r in one),
            len(one),
        )
        for one in bins
        if one
    ]


def _mean(rows: list[dict], key: str) -> float | None:
    values = [row[key] for row in rows if np.isfinite(row[key])]
    return statistics.fmean(values) if values else None


def summary(rows: list[dict]) -> dict:
    """Metrics of one seed; a number without any task behind it is left out."""
    groups = {"all": rows, "seen": [r for r in rows if not r["new"]], "new": [r for r in rows if r["new"]]}
    result: dict = {
        name: {group: _mean(chosen, name) for group, chosen in groups.items()} for name in ("exact", "valid", "top3")
    }
    error = sum(count * abs(sure - right) for sure, right, count in calibration(rows)) / len(rows)
    result |= {"tool_accuracy": _mean(rows, "tool_ok"), "consistency": _mean(rows, "consistent")}
    result |= {"regret": _mean(rows, "regret"), "ece": error}
    result["masked"] = {name: _mean(rows, f"masked_{name}") for name in ("exact", "valid", "feasible", "regret")}
    return result
