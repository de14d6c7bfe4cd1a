"""The pictures of the text half: how good summaries are, and what each thinker saw.

Two runs on the same data write the same bytes: fixed sizes and fonts, no time stamps and no version in the files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenlab.core.accept import flatten
from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, read_json

INK, SOFT, GRID = "#1b1f23", "#5b6168", "#dfe3e6"
COLOURS = ("#5b6168", "#0072B2", "#E69F00", "#009E73")  # Okabe and Ito (2008), and a grey
SUMMARY = {
    "object_f1": "things\n(F1)", "attribute_recall": "attributes\n(recall)", "key_points": "key points",
    "emotion": "emotion", "primary": "primary\nthings", "phrase_f1": "SAM3 phrases\n(F1)", "valid": "valid",
}  # fmt: skip
SIGHT = {
    "format": "format", "tone": "tone", "color_recall": "colors\n(recall)", "object_recall": "things\n(recall)",
    "object_precision": "things\n(precision)", "attribute_recall": "size, place,\nmotion", "answer": "right\nanswer",
    "summary.object_f1": "student's summary:\nthings (F1)",
}  # fmt: skip


def draw(metrics: Path, arms: list[str]) -> None:
    """Write summaries.png and thinkers.png from the JSON of arms and thinkers in `metrics`.

    Raises:
        UserError: when a file or a number that a picture needs is missing.
    """
    tables = {arm: read_json(metrics / f"{arm}.json") for arm in arms}
    ranges = {arm: {n: [seed[n] for seed in table["seeds"].values()] for n in SUMMARY} for arm, table in tables.items()}
    bars(metrics / "summaries.png", "Summaries of held-out thinkings", SUMMARY,
         {arm: flatten(table) for arm, table in tables.items()}, ranges)  # fmt: skip
    thinkers = {"scripted, from the facts": "scripted", "omni stand-in, from pixels and sound": "omni_thinker"}
    seen = {name: flatten(read_json(metrics / f"{file}.json")) for name, file in thinkers.items()}
    bars(metrics / "thinkers.png", "What each thinker saw and heard in held-out clips", SIGHT, seen, {})


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure, written at the end; from matplotlib's defaults, whatever the user's matplotlibrc says."""
    with style.context(["default", {"font.size": 11, "axes.edgecolor": "#8a9199", "legend.frameon": False}]):
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})


def bars(path: Path, title: str, names: dict[str, str], tables: dict[str, dict], ranges: dict[str, dict]) -> None:
    """Groups of bars, one a metric, a bar a table; whiskers from the lowest to the highest seed."""
    width = 0.8 / len(tables)
    with _figure(path, 11, 4.2) as figure:
        panel: Axes = figure.subplots()
        for index, (label, table) in enumerate(tables.items()):
            if absent := [name for name in names if name not in table]:
                raise UserError(f"{path.parent}: the metrics of {label} have no {absent[0]}; run the scores again.")
            places = [at + (index - (len(tables) - 1) / 2) * width for at in range(len(names))]
            values = [table[name] for name in names]
            panel.bar(places, values, 0.92 * width, color=COLOURS[index], label=label, zorder=2)
            for at, value, name in zip(places, values, names, strict=True):
                seeds = ranges.get(label, {}).get(name, [value])
                if max(seeds) > min(seeds):
                    panel.vlines(at, min(seeds), max(seeds), color=INK, linewidth=1.3, zorder=3)
                panel.text(at, max(*seeds, value) + 0.015, f"{value:.2f}", ha="center", fontsize=8.5, color=SOFT)
        panel.set_xticks(range(len(names)), list(names.values()))
        panel.set_ylim(0, 1.13)
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1])
        panel.grid(axis="y", color=GRID, zorder=0)
        panel.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=26)
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(tables), fontsize=10, borderaxespad=0.1)
        panel.spines[["top", "right"]].set_visible(False)
