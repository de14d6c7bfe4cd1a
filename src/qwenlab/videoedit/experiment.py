"""The controlled experiment: one clip, several arms, the same seeds, rolled out and teacher-forced.

Rolled out, frame i is drawn from the frame drawn before it, as a user would run it. Teacher-forced, it is drawn from
the true frame i - 1: drift, which inflates every on/off ratio, has no part in that score.
"""

import statistics
from pathlib import Path

import torch
from pydantic import Field

from qwenlab.core.edges import EdgeKind
from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, read_json, write_csv, write_json
from qwenlab.core.media import center_crop, list_frames, read_image, read_video, to_tensor, write_image
from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.core.seeding import seed_everything
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.pipeline import Drawing, FrameEditor, Runtime, load_pipeline
from qwenlab.videoedit.scores import COLUMNS, Scorer
from qwenlab.videoedit.source import edge_picture

FORCINGS = ("rollout", "teacher")
RULE_FRAMES = 8  # seed 001, 6.3: rules read the first min(8, T - 1) generated frames


class Prepare(Params):
    """Which frames of which clip."""

    clip: str
    start: int = Field(ge=0)
    step: int = Field(ge=1)
    frames: int = Field(ge=2)
    edge_kind: EdgeKind
    width: int = Field(ge=32)
    height: int = Field(ge=32)


def prepare(params: Prepare, assets: str | Path, out: str | Path) -> None:
    """Write `frames/` (T pictures) and `edges/` (T - 1, numbered as the frame they belong to)."""
    clip = Path(assets) / params.clip
    pictures = list(read_video(clip, params.start, params.step, params.frames))
    if len(pictures) < params.frames:
        raise UserError(
            f"{clip}: only {len(pictures)} frames from {params.start} on in steps of {params.step}; "
            f"videoedit.prepare.frames asks for {params.frames}."
        )
    with atomic_dir(out) as folder:
        (folder / "frames").mkdir()
        (folder / "edges").mkdir()
        for index, picture in enumerate(pictures):
            frame = center_crop(picture, params.width, params.height)
            write_image(folder / "frames" / f"{index:06d}.png", frame)
            if index:
                write_image(folder / "edges" / f"{index:06d}.png", edge_picture(frame, params.edge_kind))


def edit_arm(
    runtime: Runtime,
    drawing: Drawing,
    guidance: LossGuidanceConfig,
    sizes: LossSizes,
    seeds: list[int],
    clip: str | Path,
    out: str | Path,
) -> None:
    """Draw every frame for every seed and forcing into `<forcing>_seed<k>/`, with counts in `log.json`."""
    guidance.check_it_can_act(drawing.num_inference_steps)
    seed_everything(0)
    clip = Path(clip)
    frames = [read_image(path) for path in list_frames(clip / "frames")]
    pictures = [read_image(path) for path in list_frames(clip / "edges")]
    editor = FrameEditor(load_pipeline(runtime), runtime, drawing, guidance, sizes, frames[0])
    counts = {"guided_steps": 0, "skipped_nonfinite": 0}
    with atomic_dir(out) as folder, progress() as bars:
        task = bars.add_task("frames", total=len(seeds) * len(FORCINGS) * len(pictures))
        for seed in seeds:
            for forcing in FORCINGS:
                run = folder / f"{forcing}_seed{seed}"
                write_image(run / "000000.png", frames[0])
                previous = frames[0]
                for index, picture in enumerate(pictures, start=1):
                    target = to_tensor(picture)[:, :1].to(runtime.device)
                    source = previous if forcing == "rollout" else frames[index - 1]
                    previous, log = editor.draw(picture, source, target, seed)
                    counts["guided_steps"] += log.applied
                    counts["skipped_nonfinite"] += log.skipped_nonfinite
                    write_image(run / f"{index:06d}.png", previous)
                    bars.advance(task)
        write_json(folder / "log.json", counts)


@torch.no_grad()
def score_arm(
    runtime: Runtime, arm: str, clip: str | Path, frames: str | Path | None, hed: str | Path, metrics: str | Path
) -> None:
    """Write `<arm>.csv` (a row a frame) and `<arm>.json` (means a seed, medians over seeds).

    Without `frames` the real clip is scored: what a perfect edit would get, and the scale of its LPIPS distances.
    """
    seed_everything(0)
    clip = Path(clip)
    truth = [read_image(path) for path in list_frames(clip / "frames")]
    targets = [to_tensor(read_image(path))[:, :1] for path in list_frames(clip / "edges")]
    scorer = Scorer(runtime.vgg, truth[0], runtime.device, hed)
    runs = {(0, forcing): clip / "frames" for forcing in FORCINGS}
    log: dict = {}
    if frames is not None:
        names = sorted(path.name for path in Path(frames).glob("*_seed*"))
        runs = {(int(name.rsplit("_seed", 1)[1]), name.split("_")[0]): Path(frames) / name for name in names}
        log = read_json(Path(frames) / "log.json")
    rows, identical = [], True
    for (seed, forcing), folder in sorted(runs.items()):
        drawn = [read_image(path) for path in list_frames(folder)]
        identical &= drawn[0].tobytes() == truth[0].tobytes()
        for index in range(1, len(drawn)):
            previous = drawn[index - 1] if forcing == "rollout" else truth[index - 1]
            scores = scorer.score(drawn[index], previous, targets[index - 1], truth=truth[index])
            row = {"seed": seed, "frame": index, "forcing": forcing, "in_rule": int(index <= RULE_FRAMES)}
            rows.append({**row, **scores})
    columns = [name for name in COLUMNS if name in rows[0]]
    write_csv(Path(metrics) / f"{arm}.csv", rows, ["seed", "frame", "forcing", "in_rule", *columns])
    write_json(
        Path(metrics) / f"{arm}.json", {**summary(rows, columns), "first_frame_identical": int(identical), **log}
    )


def summary(rows: list[dict], columns: list[str]) -> dict:
    """Means over the rule's frames for every seed, and their median over seeds; 6 significant digits."""
    seeds = sorted({row["seed"] for row in rows})
    by_seed: dict[str, dict] = {}
    for seed in seeds:
        by_seed[str(seed)] = {}
        for forcing in FORCINGS:
            chosen = [r for r in rows if r["seed"] == seed and r["forcing"] == forcing and r["in_rule"]]
            means = {name: statistics.fmean(r[name] for r in chosen) for name in columns}
            if "lpips_to_prev" in means:
                means["lpips_prev_to_init"] = means["lpips_to_prev"] / max(means["lpips_to_init"], 1e-9)
            by_seed[str(seed)][forcing] = {name: float(f"{value:.6g}") for name, value in means.items()}
    medians = {
        forcing: {
            name: statistics.median(by_seed[str(seed)][forcing][name] for seed in seeds)
            for name in by_seed[str(seeds[0])][forcing]
        }
        for forcing in FORCINGS
    }
    return {**medians, "seeds": by_seed}
