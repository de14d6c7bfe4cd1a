"""Editing one video, frame by frame: two frames in memory, every finished frame on disk, resumable.

Frame i is drawn from edge picture i and frame i - 1 (seed 001, 3.2). Because the generator is made anew for every
frame and frames are stored losslessly, a killed run that continues gives the identical result.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from qwenlab.core.edges import edges, to_gray
from qwenlab.core.errors import UserError
from qwenlab.core.io import csv_text, make_dir, read_csv, read_json, write_json, write_text
from qwenlab.core.media import list_frames, read_image, to_image, to_tensor, write_image, write_video
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.guidance import GuidanceLog
from qwenlab.videoedit.pipeline import Drawing, FrameEditor, Runtime
from qwenlab.videoedit.scores import Scorer
from qwenlab.videoedit.source import Source

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Job:
    """One run of `qwenlab edit`."""

    source: Source
    drawing: Drawing
    guidance: LossGuidanceConfig
    sizes: LossSizes
    runtime: Runtime
    seed: int
    frames_dir: Path
    out_video: Path | None = None
    fps: float = 8.0
    metrics_out: Path | None = None
    debug_dir: Path | None = None
    edge_target: str = "picture"  # or "sobel": run the edge filter on the edge pictures (seed 001, 4.2)
    resume: bool = False

    def fingerprint(self) -> str:
        """Hash of everything that decides the pixels; a resumed run must have the same."""
        digest = hashlib.sha256()
        for path in (self.source.init_frame, self.source.rgb_video, self.source.edge_video):
            digest.update(file_hash(path) if path is not None else b"-")
        if self.source.edge_frames_dir is not None:
            # Frames past --max_frames count too: adding some to a finished folder makes it another input.
            for path in list_frames(self.source.edge_frames_dir):
                digest.update(path.name.encode() + file_hash(path))
        settings = [self.drawing, self.guidance, self.sizes, self.runtime]
        digest.update(json.dumps([s.model_dump() for s in settings], sort_keys=True).encode())
        digest.update(f"{self.seed} {self.edge_target} {self.source.edge_kind} {self.source.edge_resize}".encode())
        return digest.hexdigest()


def file_hash(path: Path) -> bytes:
    """sha256 of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@dataclass
class Report:
    """What a run did."""

    frames: int
    resumed_at: int
    guided_steps: int = 0
    skipped_nonfinite: int = 0


def frame_path(folder: Path, index: int) -> Path:
    """File of frame `index`."""
    return folder / f"{index:06d}.png"


def start_or_resume(job: Job) -> int:
    """Number of finished frames to keep. Refuses to mix two runs or to overwrite one silently.

    Raises:
        UserError: frames are there but --resume was not given, or they belong to other settings.
    """
    make_dir(job.frames_dir)
    found = sorted(job.frames_dir.glob("[0-9]*.png"))
    if not found:
        write_json(job.frames_dir / RUN_FILE, {"fingerprint": job.fingerprint()})
        return 0
    if not job.resume:
        raise UserError(f"{job.frames_dir}: already holds {len(found)} frames; add --resume, or name an empty folder.")
    if read_json(job.frames_dir / RUN_FILE).get("fingerprint") != job.fingerprint():
        raise UserError(
            f"{job.frames_dir}: its frames were made from other inputs or settings, so they cannot be continued; "
            "name an empty folder."
        )
    done = 0
    while frame_path(job.frames_dir, done).is_file():
        done += 1
    return done


def edge_target_of(picture: Image.Image, job: Job) -> torch.Tensor:
    """What the edge loss compares with, `[1, 1, H, W]`: the picture itself, or its own edges."""
    tensor = to_tensor(picture)
    return to_gray(tensor) if job.edge_target == "picture" else edges(tensor, job.source.edge_kind)


def run(
    job: Job,
    load: Callable[[Runtime], object],
    on_frame: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Report:
    """Edit the video of `job`.

    Args:
        load: makes the pipeline; called after all cheap checks have passed.
        on_frame: told (finished frames, total) after each frame.
        on_step: told the denoising step.

    Raises:
        UserError: on bad input, before anything is written where possible.
    """
    total = job.source.check()
    job.guidance.check_it_can_act(job.drawing.num_inference_steps)
    first = job.source.first()
    for path in (job.out_video, job.metrics_out):
        if path is not None:
            make_dir(path.parent)
    if job.debug_dir is not None:
        make_dir(job.debug_dir)
    done = start_or_resume(job)
    report = Report(frames=total, resumed_at=done)
    if done == 0:
        write_image(frame_path(job.frames_dir, 0), first)  # copied, never generated
        done = 1
    on_frame(done, total)
    if done < total:
        editor = FrameEditor(load(job.runtime), job.runtime, job.drawing, job.guidance, job.sizes, first)
        scorer = Scorer(job.runtime.vgg, first, job.runtime.device) if job.metrics_out else None
        previous = read_image(frame_path(job.frames_dir, done - 1))
        pictures = job.source.edge_pictures(first.size, done - 1, total)
        for index, picture in enumerate(pictures, start=done):
            target = edge_target_of(picture, job).to(job.runtime.device)
            frame, log = editor.draw(picture, previous, target, job.seed, on_step, job.debug_dir is not None)
            if job.debug_dir is not None:
                save_debug(job.debug_dir, index, frame, target, log, job.source.edge_kind)
            if scorer is not None and job.metrics_out is not None:
                append_row(job.metrics_out, index, scorer.score(frame, previous, target, job.source.edge_kind), log)
            # The frame comes last: a frame on disk has its row, so a resumed run never lacks one.
            write_image(frame_path(job.frames_dir, index), frame)
            report.guided_steps += log.applied
            report.skipped_nonfinite += log.skipped_nonfinite
            previous = frame
            on_frame(index + 1, total)
    if job.out_video is not None:
        frames = (read_image(frame_path(job.frames_dir, index)) for index in range(total))
        write_video(job.out_video, frames, job.fps)
    return report


def append_row(path: Path, index: int, scores: dict[str, float], log: GuidanceLog) -> None:
    """Add (or replace, after a resume) the row of frame `index`; the file is complete at every moment."""
    rows: list[dict] = [row for row in read_csv(path) if int(row["frame"]) < index] if path.is_file() else []
    rows.append({"frame": index, **scores, "guided_steps": log.applied, "skipped_nonfinite": log.skipped_nonfinite})
    if index == 1:
        rows = rows[-1:]
    write_text(path, csv_text(rows, list(rows[-1])))


def save_debug(folder: Path, index: int, frame: Image.Image, target: torch.Tensor, log: GuidanceLog, kind) -> None:
    """Two pictures a frame: target edges beside the frame's own edges, and the estimates of the guided steps."""
    own = edges(to_tensor(frame), kind)
    write_image(folder / f"{index:06d}_edges.png", to_image(torch.cat([target.cpu(), own], -1)))
    if log.estimates:
        write_image(folder / f"{index:06d}_estimates.png", to_image(torch.cat(log.estimates, -1)))
