"""The pictures of the experiment: accuracy, regret and reliability of every arm, and the memory in two dimensions."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from qwenlab.core.errors import UserError
from qwenlab.core.figures import INK, SOFT, arm_look, new_figure, tidy
from qwenlab.core.io import read_csv, read_json
from qwenlab.tomas.export import Memory
from qwenlab.tomas.judging import COLUMNS, calibration

METRICS = {"exact": "the solver's own choice", "valid": "fits and is in time", "top3": "solver's choice in first 3"}
HATCHED: dict[str, Any] = {"fill": False, "hatch": "////"}
GROUPS: dict[str, dict[str, Any]] = {"seen configurations": {}, "new configurations": HATCHED}  # column `new`: 0, 1
RULES = {"best rule of thumb": "--", "rule of thumb that knows the prices": ":"}
EXACT_REGRET = 1  # percent; below it the axis is linear, so that a regret of zero has a place
LARGEST = 320  # points^2, the marker of the fullest bin
NEW_RING: dict[str, Any] = {"edgecolors": INK, "linewidths": 1.1, "s": 40, "zorder": 3}
KNOWN_DOT: dict[str, Any] = {"edgecolors": "none", "s": 15, "alpha": 0.75, "zorder": 2}

Rows = list[dict[str, float]]


def draw(memory: Memory, metrics: Path, arms: list[str]) -> None:
    """Write accuracy.png, regret.png, reliability.png and memory.png.

    Args:
        memory: what export_weights wrote.
        metrics: <arm>.csv of every arm, and heuristic.json; gets the pictures.

    Raises:
        UserError: when a file or a number that a picture needs is missing.
    """
    tables = {arm: read_rows(metrics / f"{arm}.csv") for arm in arms}
    rules = read_rules(metrics / "heuristic.json")
    draw_accuracy(metrics / "accuracy.png", tables, rules)
    draw_regret(metrics / "regret.png", tables)
    draw_reliability(metrics / "reliability.png", tables)
    draw_memory(metrics / "memory.png", memory)


def read_rows(path: Path) -> Rows:
    """The rows of an arm as numbers; an empty cell is NaN."""
    rows = read_csv(path)
    if not rows or set(COLUMNS) - set(rows[0]):
        raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)} and a row a task; run tomas-score again.")
    try:
        return [{name: float("nan" if row[name] == "" else row[name]) for name in COLUMNS} for row in rows]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a cell is no number ({error}); run tomas-score again.") from error


def read_rules(path: Path) -> list[float]:
    """Share exact of the best rule of thumb, without and with the operator's prices; in the order of `RULES`."""
    found = read_json(path)
    try:
        return [float(found["exact"]["all"]), float(found["informed"]["exact"]["all"])]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: holds no exact.all and informed.exact.all; run tomas-heuristic again.") from error


def known(rows: Rows, column: str) -> Rows:
    """The rows with a number in that column."""
    return [row for row in rows if math.isfinite(row[column])]


def by_seed(rows: Rows, metric: str, new: int | None = None) -> list[float]:
    """The mean of every seed over all tasks, or over those with that value of `new`; empty without such tasks."""
    seeds: dict[float, list[float]] = {}
    for row in rows:
        if new is None or row["new"] == new:
            seeds.setdefault(row["seed"], []).append(row[metric])
    return [statistics.fmean(values) for values in seeds.values()]


def draw_accuracy(path: Path, tables: dict[str, Rows], rules: list[float]) -> None:
    """A panel a metric, a pair of bars an arm: the mean over seeds, whiskers from the lowest to the highest seed."""
    with new_figure(path, 8, 4) as figure:
        panels = figure.subplots(1, len(METRICS), sharey=True)
        for panel, (metric, meaning) in zip(panels, METRICS.items(), strict=True):
            for number, rows in enumerate(tables.values()):
                _bars(panel, number, rows, metric)
            tidy(panel, metric.replace("top3", "top-3"), meaning)
            panel.grid(False, axis="x")
            panel.set_xticks(range(len(tables)), list(tables))
            panel.set(xlabel="arm", ylim=(0, 1.02))
        panels[0].set_ylabel("share of tasks")
        for value, dashes in zip(rules, RULES.values(), strict=True):  # rules are judged by the exact plan only
            panels[0].axhline(value, color=INK, ls=dashes, lw=1.5)
        handles: list[Any] = [Patch(ec=SOFT, fc=SOFT, label=group, **look) for group, look in GROUPS.items()]
        handles += [Line2D([], [], color=INK, marker="D", ls="none", ms=5, label="all tasks")]
        handles += [Line2D([], [], color=INK, ls=dashes, lw=1.5, label=name) for name, dashes in RULES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)


def _bars(panel: Axes, number: int, rows: Rows, metric: str) -> None:
    """Seen (filled) and new (hatched) side by side, and a diamond for all tasks between them."""
    colour = arm_look(number)["color"]
    for new, look in enumerate(GROUPS.values()):
        if not (seeds := by_seed(rows, metric, new)):  # no task of that kind: no bar
            continue
        at, mean = number - 0.2 + 0.4 * new, statistics.fmean(seeds)
        panel.bar(at, mean, 0.38, ec=colour, fc=colour, **look)
        panel.errorbar(at, mean, [[mean - min(seeds)], [max(seeds) - mean]], color=INK, capsize=3, lw=1.2)
        if not any(seeds):  # else it would look as if there were no such tasks
            panel.text(at, 0.015, "0", ha="center", color=colour, fontweight="bold")
    panel.plot(number, statistics.fmean(by_seed(rows, metric)), "D", color=INK, mec="white", ms=6, clip_on=False)


def draw_regret(path: Path, tables: dict[str, Rows]) -> None:
    """How many of ALL tasks got a valid plan of at most that regret; plans that are not valid never count."""
    percent = {arm: np.sort([100 * row["regret"] for row in known(rows, "regret")]) for arm, rows in tables.items()}
    right = max([10 * EXACT_REGRET, *(values[-1] for values in percent.values() if len(values))]) * 1.1
    with new_figure(path, 5.6, 4) as figure:
        panel = figure.subplots()
        for number, (arm, values) in enumerate(percent.items()):
            at = np.unique([0, *values, right])
            share = np.searchsorted(values, at, side="right") / len(tables[arm])
            look = arm_look(number) | {"lw": 2, "ms": 6, "label": arm}
            # Markers at both ends: plans without any regret, and all valid plans.
            panel.plot(at, share, drawstyle="steps-post", markevery=[0, len(at) - 1], clip_on=False, zorder=3, **look)
        tidy(panel)
        panel.set_xscale("symlog", linthresh=EXACT_REGRET)
        panel.xaxis.set_major_locator(FixedLocator([0, *(10**power for power in range(int(np.log10(right)) + 1))]))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.set(xlim=(0, right), xlabel="regret of the plan against the solver's, % (linear up to 1)")
        panel.set(ylim=(0, 1.02), ylabel="share of all tasks with a valid\nplan of at most that regret")
        figure.legend(loc="outside lower center", ncols=4)


def draw_reliability(path: Path, tables: dict[str, Rows]) -> None:
    """A panel an arm: how often a plan is exact against how sure the planner was; the area of a marker is the count."""
    bins = {arm: calibration(known(rows, "probability")) for arm, rows in tables.items()}
    most = max((count for found in bins.values() for *_, count in found), default=1)
    with new_figure(path, 8, 3.6) as figure:
        panels = figure.subplots(1, len(bins), sharey=True, squeeze=False)[0]
        for number, (panel, (arm, found)) in enumerate(zip(panels, bins.items(), strict=True)):
            look, (sure, right, count) = {"color": arm_look(number)["color"]}, np.array(found).reshape(-1, 3).T
            panel.plot([0, 1], [0, 1], color=SOFT, ls="--", lw=1.2)
            panel.plot(sure, right, lw=1, alpha=0.6, **look)
            look |= {"alpha": 0.75, "edgecolors": INK, "linewidths": 0.6, "clip_on": False}
            panel.scatter(sure, right, LARGEST * count / most, **look)
            tidy(panel, arm)
            panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="stated probability")
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panels[0].set_ylabel("share of plans that are exact")
        handles = [Line2D([], [], color=SOFT, ls="--", lw=1.2, label="as sure as right")]
        for plans in (10 ** int(np.log10(most)) // 10, 10 ** int(np.log10(most))):  # what areas mean, in round numbers
            look = {"color": SOFT, "ms": (LARGEST * plans / most) ** 0.5, "label": f"{plans:,} plans"}
            handles += [Line2D([], [], ls="none", marker="o", **look)] if plans else []
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)


def directions(memory: Memory) -> np.ndarray:
    """The rows `[N, H]` as the head reads them: without the mean of the known rows, of length 1."""
    rows = memory.weights.double().numpy()
    rows = rows - rows[~memory.new].mean(0)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def two_components(rows: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places `[N, 2]` on the first two principal components of the known rows, and the shares of their variance `[2]`.

    New rows are only projected: that they land among the others is then not of their own making.
    """
    rows = rows - rows[known].mean(0)
    # Two rows of zeros change no component, and there are two components even of a single row.
    _, values, axes = np.linalg.svd(np.vstack([rows[known], np.zeros((2, rows.shape[1]))]), full_matrices=False)
    signs = np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(1)])  # a component's sign is arbitrary: largest entry > 0
    return rows @ (axes[:2] * signs[:, None]).T, values[:2] ** 2 / max((values**2).sum(), 1e-12)


def draw_memory(path: Path, memory: Memory) -> None:
    """All rows by tool; and those of the first tool by latency and size, which differences between tools may hide."""
    profile = memory.profile
    names, first = [name.replace("_", " ") for name in profile.registry.names], np.flatnonzero(profile.tool_ids == 0)
    norm = LogNorm(profile.latency[first].min(), profile.latency[first].max())
    with new_figure(path, 8, 4.9) as figure:
        left, right = figure.subplots(1, 2)
        _rows(left, memory, np.arange(len(profile)), profile.tool_ids, names)
        tidy(left, "all tools", "colour: tool")
        sizes = [f"{name} input" for name in profile.registry.input_sizes]
        _rows(right, memory, first, profile.resources[first, 0], sizes, norm)
        tidy(right, f"{names[0]} only", "colour: latency")
        ticks: dict[str, Any] = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "%g"}
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=right, label="latency (ms)", pad=0.02, **ticks)
        bar.minorticks_off()


def _rows(panel: Axes, memory: Memory, rows: np.ndarray, kinds: np.ndarray, names: list[str],
          latency: LogNorm | None = None) -> None:  # fmt: skip
    """Some rows of the memory, a marker a kind (`names` of `kinds`); the colour is the kind's, or the latency's."""
    new = memory.new[rows]
    places, shares = two_components(directions(memory)[rows], ~new)
    handles = []
    for number, name in enumerate(names):
        look = arm_look(number) | ({"color": SOFT} if latency else {})
        handles.append(Line2D([], [], ls="none", ms=6, label=name, **look))
        for here, dots in ((~new & (kinds == number), KNOWN_DOT), (new & (kinds == number), NEW_RING)):
            colour = {"c": memory.profile.latency[rows][here], "norm": latency, "cmap": "viridis", "color": None}
            panel.scatter(places[here, 0], places[here, 1], **dots | look | (colour if latency else {}))
    handles.append(Line2D([], [], ls="none", marker="o", mfc="white", mec=INK, ms=7, label="ringed: new"))
    panel.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)
    panel.set(xlabel=f"component 1 ({shares[0]:.0%} of variance)", ylabel=f"component 2 ({shares[1]:.0%})")
    panel.set_aspect("equal", "datalim")  # a distance is one in any direction
    panel.xaxis.set_major_locator(MaxNLocator(5))
