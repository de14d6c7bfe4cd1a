"""The pictures of the experiment: a strip of frames, curves per frame, and a moving comparison.

Two runs on the same data write the same bytes: fixed sizes and fonts (matplotlib's own DejaVu Sans, not the
system's), no time stamps and no version in the files.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path, make_dir, read_csv
from qwenlab.core.media import list_frames, natural_key, read_image, write_image
from qwenlab.core.params import Params

STRIP_CELL, FILM_CELL = 192, 288  # pixels; the widest that a frame is shown
STRIP_FRAMES = 9  # columns of the strip: the input and the frames that the rules read
FRAME_MS = 250  # of the moving comparison: 4 frames a second
INK, PAPER, BLANK = "#1b1f23", "#ffffff", "#eceff1"

# Okabe and Ito (2008): the arms stay apart for colour-blind readers. Markers say the same without colour.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
METRICS = {  # metric -> what it says, short enough for half a phone's width
    "edge_loss": "edges missed, lower is better",
    "gram_loss": "style drift, lower is better",
    "psnr": "dB to truth, higher is better",
    "lpips_to_prev": "change from frame to frame",
    "hed_edge_loss": "edges by HED, lower is better",
}
FORCINGS = {"rollout": "-", "teacher": ":"}  # each frame from the one drawn before it, or from the true one
REAL_CLIP: dict[str, Any] = {"color": "#70757a", "lw": 1}
# The real clip as a yardstick. Elsewhere it is perfect by definition (psnr to itself) and would only stretch the axis.
TRUTH_IN = ("gram_loss", "lpips_to_prev")


class Compared(Params):
    """The two arms of the claim (`videoedit.verdict`)."""

    control: str
    treatment: str


def draw(compared: Compared, clip: str | Path, edits: str | Path, metrics: str | Path) -> None:
    """Write frames.png, per_frame.png and comparison.gif.

    Args:
        clip: what prepare wrote.
        edits: a folder an arm, as edit wrote them.
        metrics: <arm>.csv of every arm, and truth.csv if there is one; gets the pictures.

    Raises:
        UserError: when an arm, its frames or its numbers are missing.
    """
    metrics = make_dir(metrics)
    arms = list_arms(edits, compared)
    truth = [read_image(path) for path in list_frames(Path(clip) / "frames")]
    edges = [read_image(path) for path in list_frames(Path(clip) / "edges")]
    if len(edges) != len(truth) - 1:
        raise UserError(f"{clip}: {len(edges)} edge pictures for {len(truth)} frames; expected one fewer than frames.")
    rows: dict[str, Sequence[Image.Image | None]] = {"true frame": truth, "edge picture": [None, *edges]}
    rows |= {label(arm, compared): first_roll_out(Path(edits) / arm, len(truth)) for arm in arms}
    size = shown_size(truth[0], STRIP_CELL)
    write_image(metrics / "frames.png", strip(rows, size, min(len(truth), STRIP_FRAMES)))
    size = shown_size(truth[0], FILM_CELL)
    panels = list(rows.items())[:4]  # truth, edges, control, treatment
    write_gif(metrics / "comparison.gif", [side_by_side(panels, index, size) for index in range(len(truth))])
    tables = {label(arm, compared): read_csv(metrics / f"{arm}.csv") for arm in arms}
    real = metrics / "truth.csv"
    write_per_frame(metrics / "per_frame.png", tables, read_csv(real) if real.exists() else [])


def list_arms(edits: str | Path, compared: Compared) -> list[str]:
    """The arms that were drawn: control, treatment, then the others by name."""
    found = sorted((path for path in Path(edits).glob("*") if any(path.glob("rollout_seed*"))), key=natural_key)
    names = [path.name for path in found]
    for arm in (compared.control, compared.treatment):
        if arm not in names:
            raise UserError(f"{Path(edits) / arm}: holds no rollout_seed*; arms there: {', '.join(names) or 'none'}.")
    return list(dict.fromkeys([compared.control, compared.treatment, *names]))


def label(arm: str, compared: Compared) -> str:
    """The arm's name and its part in the claim."""
    part = {compared.control: " (control)", compared.treatment: " (treatment)"}
    return f"{arm}{part.get(arm, '')}"


def first_roll_out(arm: Path, count: int) -> list[Image.Image]:
    """The frames of the roll-out with the lowest seed."""
    folder = min(arm.glob("rollout_seed*"), key=natural_key)
    frames = [read_image(path) for path in list_frames(folder)]
    if len(frames) != count:
        raise UserError(f"{folder}: holds {len(frames)} frames, the clip has {count}; run videoedit-edit again.")
    return frames


def shown_size(frame: Image.Image, widest: int) -> tuple[int, int]:
    """Width and height a frame is shown at: small frames grow by an integer factor, large ones shrink to `widest`."""
    factor = widest // frame.width or widest / frame.width
    return round(frame.width * factor), round(frame.height * factor)


def _fit(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    # NEAREST shows the pixels as they are; it would drop pixels when shrinking.
    grows = size[0] >= frame.width
    return frame.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont:
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)  # the same with and without raqm


def strip(rows: dict[str, Sequence[Image.Image | None]], size: tuple[int, int], columns: int) -> Image.Image:
    """A row an arm, a column a frame. Labels stand above their row, where a narrow screen still shows them."""
    (width, height), gap, text = size, 6, 28
    head, line = text + 2 * gap, text + 3 * gap
    total = (columns * (width + gap) + gap, head + len(rows) * (line + height) + gap)
    picture = Image.new("RGB", total, PAPER)
    pen, font = ImageDraw.Draw(picture), _font(text)
    for column in range(columns):
        name = f"frame {column}" if column else "frame 0: given"
        pen.text((gap + column * (width + gap) + width // 2, gap), name, INK, _font(text - 6), anchor="ma")
    for row, (name, frames) in enumerate(rows.items()):
        top = head + row * (line + height)
        pen.text((gap, top + gap), name, INK, font)
        for column in range(columns):
            _place(picture, frames[column], (gap + column * (width + gap), top + line), size)
    return picture


def _place(picture: Image.Image, frame: Image.Image | None, at: tuple[int, int], size: tuple[int, int]) -> None:
    """A frame, or an empty field where there is none (the first frame has no edge picture)."""
    picture.paste(_fit(frame, size) if frame else Image.new("RGB", size, BLANK), at)


def side_by_side(
    panels: Sequence[tuple[str, Sequence[Image.Image | None]]], index: int, size: tuple[int, int]
) -> Image.Image:
    """One picture of the moving comparison: two columns, which a phone can show whole, the two arms side by side."""
    (width, height), gap, text = size, 6, 24
    line = text + 2 * gap
    picture = Image.new("RGB", (2 * (width + gap) + gap, (len(panels) + 1) // 2 * (height + line) + gap), PAPER)
    pen, font = ImageDraw.Draw(picture), _font(text)
    for number, (name, frames) in enumerate(panels):
        left, top = gap + number % 2 * (width + gap), number // 2 * (height + line)
        pen.text((left, top + gap // 2), name, INK, font)
        _place(picture, frames[index], (left, top + line), size)
    return picture


def write_gif(path: Path, frames: list[Image.Image]) -> None:
    """An endless GIF. One palette for all frames: still parts do not flicker, and the file is small."""
    everything = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for index, frame in enumerate(frames):
        everything.paste(frame, (0, index * frame.height))
    palette = everything.quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=rest, duration=FRAME_MS, loop=0)


def write_per_frame(path: Path, tables: dict[str, list[dict[str, str]]], truth: list[dict[str, str]]) -> None:
    """A panel a metric: the mean over seeds with the range as a band, rolled out (solid) and teacher-forced (dotted).

    Args:
        tables: rows of <arm>.csv for every arm.
        truth: rows of truth.csv; may be empty.
    """
    # A metric may be missing: without torchvision there is neither Gram nor LPIPS.
    names = [name for name in METRICS if all(rows and name in rows[0] for rows in tables.values())]
    if not names:
        raise UserError(f"{path.parent}: the CSV files of the arms hold none of the metrics {', '.join(METRICS)}.")
    # From matplotlib's defaults, whatever the user's matplotlibrc says. Letters are large for the figure's size,
    # because a phone shows it at a third.
    with style.context(["default", {"font.size": 11, "axes.edgecolor": "#8a9199"}]):
        lines = len(names) // 2 + 1  # with one panel for the legend
        figure = Figure(figsize=(5.4, 2.4 * lines), dpi=200, layout="constrained")
        panels = figure.subplots(lines, 2, squeeze=False).flatten()
        for panel, name in zip(panels, names, strict=False):
            _panel(panel, name, tables, truth)
        for panel in panels[len(names) :]:
            panel.axis("off")
        panels[len(names)].legend(handles=_legend(list(tables), bool(truth)), loc="center", frameon=False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of an arm, by its place."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "ms": 4.5}


def _legend(arms: list[str], truth: bool) -> list[Line2D]:
    """The arms, then what the kinds of line mean."""
    handles = [Line2D([], [], lw=1.8, label=arm, **_look(number)) for number, arm in enumerate(arms)]
    handles += [Line2D([], [], lw=1.8, ls=dashes, color=INK, label=forcing) for forcing, dashes in FORCINGS.items()]
    return handles + [Line2D([], [], **REAL_CLIP, label="real clip")] * truth


def _panel(panel: Axes, name: str, tables: dict[str, list[dict[str, str]]], truth: list[dict[str, str]]) -> None:
    for number, rows in enumerate(tables.values()):
        for forcing, dashes in FORCINGS.items():
            values = _by_frame(rows, name, forcing)
            look = _look(number) if forcing == "rollout" else {"color": _look(number)["color"]}
            panel.plot(list(values), [statistics.fmean(seeds) for seeds in values.values()], ls=dashes, lw=1.8, **look)
            low, high = [min(seeds) for seeds in values.values()], [max(seeds) for seeds in values.values()]
            panel.fill_between(list(values), low, high, color=look["color"], alpha=0.15, lw=0)
    if name in TRUTH_IN and truth and name in truth[0]:
        real = _by_frame(truth, name, "rollout")
        panel.plot(list(real), [seeds[0] for seeds in real.values()], **REAL_CLIP)
    panel.set_title(name, loc="left", fontsize=12, fontweight="bold", pad=18)
    panel.text(0, 1.04, METRICS[name], transform=panel.transAxes, fontsize=9, color="#4a5056")
    panel.set_xlabel("frame")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # else "1e-5" stands in the title
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#dfe3e6", lw=0.8)
    if name != "psnr":
        panel.set_ylim(bottom=0)  # ratios can be seen; decibels have no such zero


def _by_frame(rows: list[dict[str, str]], name: str, forcing: str) -> dict[int, list[float]]:
    """Frame -> the value of every seed."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["forcing"] == forcing:
            values.setdefault(int(row["frame"]), []).append(float(row[name] or "nan"))
    return dict(sorted(values.items()))
