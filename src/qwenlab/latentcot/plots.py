"""The pictures of the experiment: fix of every arm, fix by length of chain, what spoilt latents cost, and examples.

Two runs on the same data write the same bytes: matplotlib's own font, no time stamps and no version in the files.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, read_csv, read_json

INK, SOFT, GRID = "#1b1f23", "#5b6168", "#dfe3e6"
# Okabe and Ito (2008): apart for colour-blind readers.
COLOURS = {"base": "#5b6168", "text": "#E69F00", "pause": "#009E73", "latent": "#0072B2"}
MARKERS = {"base": "D", "text": "o", "pause": "s", "latent": "^"}
ARMS = tuple(COLOURS)
GOALS = {"direct": "direct goals", "chained": "chained goals"}
PAIRS = {
    "base": "base",
    "text": "text control",
    "pause": "pause control",
    "shuffled": "itself, latents shuffled",
    "zero": "itself, latents zeroed",
}

Rows = list[dict[str, str]]


def draw(metrics: Path) -> None:
    """Write fix.png, depth.png and compare.png beside the arms' files.

    Raises:
        UserError: when a file or a column is missing.
    """
    tables = {arm: read_csv(metrics / f"{arm}.csv") for arm in ARMS}
    for arm, rows in tables.items():
        if not rows or {"seed", "goal", "depth", "fix"} - set(rows[0]):
            raise UserError(f"{metrics / arm}.csv: expected seed, goal, depth and fix; run latentcot-score again.")
    save(fix(tables), metrics / "fix.png")
    save(depth(tables), metrics / "depth.png")
    save(compare(read_json(metrics / "compare.json")), metrics / "compare.png")


def save(figure: Figure, path: Path) -> None:
    """As PNG, without what changes from run to run."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def plain(axes: Axes) -> None:
    """The look of all pictures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def by_seed(rows: Rows, **wanted: str) -> list[float]:
    """Share fixed of every seed, among the rows with these values."""
    kept = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    seeds = sorted({row["seed"] for row in kept}, key=int)
    return [float(np.mean([float(row["fix"]) for row in kept if row["seed"] == seed])) for seed in seeds]


def fix(tables: dict[str, Rows]) -> Figure:
    """Bars with the median over seeds; every seed is a dot."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, (goal, title) in zip(figure.subplots(1, 2, sharey=True), GOALS.items(), strict=True):
        for at, arm in enumerate(ARMS):
            values = by_seed(tables[arm], goal=goal)
            axes.bar(at, np.median(values), 0.62, color=COLOURS[arm], alpha=0.85)
            axes.scatter([at] * len(values), values, s=14, color=INK, zorder=3)
            axes.annotate(f"{np.median(values):.3f}", (at, 0.02), ha="center", fontsize=8.5, color="white")
        axes.set_xticks(range(len(ARMS)), ARMS)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_ylim(0, 1)
        plain(axes)
    figure.axes[0].set_ylabel("share of held-out drawings fixed", fontsize=9)
    return figure


def depth(tables: dict[str, Rows]) -> Figure:
    """Chained goals: share fixed against the number of links that the answer hangs on."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    depths = sorted({row["depth"] for row in tables["text"] if row["goal"] == "chained"}, key=int)
    for number, arm in enumerate(ARMS):
        values = [by_seed(tables[arm], goal="chained", depth=one) for one in depths]
        at = np.arange(len(depths)) + (number - 1.5) * 0.06
        middle = np.array([np.median(one) for one in values])
        low, high = np.array([min(one) for one in values]), np.array([max(one) for one in values])
        axes.errorbar(
            at, middle, [middle - low, high - middle], color=COLOURS[arm], marker=MARKERS[arm], markersize=5, label=arm,
            linewidth=1.4, elinewidth=1,
        )  # fmt: skip
    axes.set_xticks(range(len(depths)), depths)
    axes.set_xlabel("links of the chain that the answer hangs on", fontsize=9)
    axes.set_ylabel("share fixed", fontsize=9)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8.5)
    plain(axes)
    return figure


def in_words(found: dict) -> str:
    """Whether the latents helped, over all goals: more or fewer only where the interval leaves zero out."""
    parts = []
    for other in ("text", "pause"):
        one = found[other]["all"]
        share = "more than" if one["low"] > 0 else "less than" if one["high"] < 0 else "about as much as"
        parts.append(f"{share} {other} ({one['diff']:+.3f})")
    own = found["shuffled"]["all"]
    read = (
        f"Its own latents {'matter' if own['low'] > 0 else 'hardly matter'}: {own['diff']:+.3f} over another sample's"
    )
    return f"All goals: with latents it fixes {parts[0]} and {parts[1]}.\n{read}."


def compare(found: dict) -> Figure:
    """What the latent arm fixes more than another, with its 95% interval, and in words."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    figure.suptitle(in_words(found), fontsize=9.5, color=INK)
    for axes, (goal, title) in zip(figure.subplots(1, 2, sharex=True, sharey=True), GOALS.items(), strict=True):
        for at, other in enumerate(reversed(PAIRS)):
            one = found[other][goal]
            error = [[one["diff"] - one["low"]], [one["high"] - one["diff"]]]
            axes.errorbar(one["diff"], at, xerr=error, fmt="o", color=COLOURS["latent"], markersize=5, capsize=3)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(PAIRS)), list(reversed(PAIRS.values())))
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("latent arm minus the other, share fixed", fontsize=9)
        plain(axes)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
    return figure
