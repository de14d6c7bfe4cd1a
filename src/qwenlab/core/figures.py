"""Plots of every system in one style. Two runs on the same data write the same bytes: fixed sizes, matplotlib's own
font and not the system's, no time stamps and no version in the files.

    with new_figure(path, 8, 4) as drawn:
        panel = drawn.subplots()
        panel.plot(x, y, **arm_look(0))
        tidy(panel, "recall", "held-out worlds")
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenlab.core.io import atomic_path

INK, SOFT, GRID = "#1b1f23", "#5b6168", "#dfe3e6"
# Okabe and Ito (2008), then a grey: apart for colour-blind readers. Markers say the same without colour.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5b6168")
MARKERS = "osD^vP"  # one fewer than colours: 42 pairs before one comes again


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, written at the end; from matplotlib's defaults, whatever the user's rc file says."""
    with style.context(["default", {"font.size": 11, "axes.edgecolor": "#8a9199", "legend.frameon": False}]):
        drawn = Figure(figsize=(width, height), dpi=160, layout="constrained")
        yield drawn
        with atomic_path(path) as temporary:
            drawn.savefig(temporary, metadata={"Software": None})


def tidy(panel: Axes, title: str = "", subtitle: str = "") -> None:
    """Title and subtitle on the left, two spines, a grid behind."""
    panel.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=20 if subtitle else 6)
    panel.text(0, 1.03, subtitle, transform=panel.transAxes, fontsize=10, color=SOFT)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color=GRID, lw=0.8)
    panel.set_axisbelow(True)


def arm_look(number: int) -> dict[str, Any]:
    """Colour and marker of an arm, by its place."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
