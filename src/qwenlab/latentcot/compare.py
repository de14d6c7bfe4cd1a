"""The latent arm against every other, item by item, with bootstrap intervals.

An item is a held-out sample; its value is the mean over seeds, and items are drawn again 2000 times. wins and losses
count (seed, item) pairs that one side fixes and the other does not.
"""

from pathlib import Path

import numpy as np

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_csv, write_json
from qwenlab.core.summary import rounded

DRAWS = 2000
GOALS = ("all", "direct", "chained")
OTHERS = ("base", "text", "pause", "zero", "shuffled")  # the last two: the latent arm with spoilt latents


def column(path: Path, name: str) -> dict[tuple[str, str], tuple[float, str]]:
    """(seed, id) -> value of a column and the kind of goal."""
    rows = read_csv(path)
    try:
        return {(row["seed"], row["id"]): (float(row[name]), row["goal"]) for row in rows}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: a row has no number under {name!r} ({error}); run latentcot-score again.") from error


def paired(mine: dict, theirs: dict, goal: str) -> dict[str, float]:
    """diff (mine - theirs) with the bounds of its 95% interval, wins, losses, and the number of items."""
    wanted = [key for key, (_, kind) in mine.items() if goal in ("all", kind)]
    by_item: dict[str, list[float]] = {}
    wins = losses = 0
    for seed, item in wanted:
        other = theirs.get((seed, item)) or theirs.get(("0", item))  # the base has one seed
        if other is None:
            raise UserError(f"item {item} of seed {seed} was not scored on both sides; run latentcot-score again.")
        gap = mine[seed, item][0] - other[0]
        by_item.setdefault(item, []).append(gap)
        wins, losses = wins + (gap > 0), losses + (gap < 0)
    values = np.array([np.mean(gaps) for gaps in by_item.values()])
    rng = np.random.default_rng(0)
    draws = np.array([rng.choice(values, len(values)).mean() for _ in range(DRAWS)])
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"diff": float(values.mean()), "low": float(low), "high": float(high), "wins": wins, "losses": losses,
            "items": len(values)}  # fmt: skip


def run(metrics: str | Path) -> dict:
    """Read the arms' CSV files and write compare.json."""
    folder = Path(metrics)
    mine, found = column(folder / "latent.csv", "fix"), {}
    for other in OTHERS:
        spoilt = other in ("zero", "shuffled")
        theirs = column(folder / ("latent.csv" if spoilt else f"{other}.csv"), f"fix_{other}" if spoilt else "fix")
        found[other] = {goal: paired(mine, theirs, goal) for goal in GOALS}
    write_json(folder / "compare.json", rounded(found))
    return found
