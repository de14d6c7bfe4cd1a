"""`qwenlab segment`: what phrases name in a video, as masks, statistics and a mask video (seed 004, phase six).

Answers go to stdout as JSON, everything else to stderr and to the folder that --out names.
"""

import json
from functools import partial
from pathlib import Path

import click

from qwenlab.core.errors import UserError
from qwenlab.core.io import make_dir, safe_name
from qwenlab.core.params import load


def folder_names(videos: tuple[Path, ...]) -> list[str]:
    """One safe, distinct folder name a video.

    Raises:
        UserError: on a file name that cannot become a folder's.
    """
    names: list[str] = []
    for video in videos:
        name = safe_name(
            "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in video.stem).lstrip("._-")
            or "video"
        )
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


@click.command(context_settings={"max_content_width": 110})
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--phrase", "phrases", multiple=True, required=True, help="What to look for; one prompt each, any number."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("segments"), show_default=True)
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many frames of each video.")
@click.option("--overlay-frames", is_flag=True, help="Write every frame with its masks as a PNG, too.")
@click.option("--model", help="SAM3 folder or hub id; by default that of the active profile.")
@click.option("--device", help="cpu, cuda, ...; by default that of the active profile.")
def segment(
    videos: tuple[Path, ...],
    phrases: tuple[str, ...],
    out: Path,
    max_frames: int | None,
    overlay_frames: bool,
    model: str | None,
    device: str | None,
) -> None:
    """Segment and track in VIDEOS everything that a --phrase names.

    Writes for each video segmentation.json (statistics, tracks, masks as COCO RLE) and mask_video.mp4 (all objects in
    distinct colours, a legend, the original sound), and prints the statistics. A bad file is reported, the others go
    on; the exit code is then 2.

    \b
    qwenlab segment clip.mp4 --phrase "red circle" --phrase "blue square"
    qwenlab segment a.mp4 b.mp4 --phrase "person in a red shirt" --max-frames 300 --out masks/
    """
    from rich.console import Console

    from qwenlab.core.progress import progress
    from qwenlab.thinkseg.sam3 import Sam3Params, clean_phrases
    from qwenlab.thinkseg.segment import Segmenter, write_outputs
    from qwenlab.thinkseg.video import video_info

    clean_phrases(phrases)
    names = folder_names(videos)
    make_dir(out)
    changes = {name: value for name, value in (("model", model), ("device", device)) if value}
    segmenter = Segmenter.load(load("thinkseg.sam3", Sam3Params).model_copy(update=changes))
    answers, failed = {}, False
    with progress(console=Console(stderr=True)) as bar:
        for video, name in zip(videos, names, strict=True):
            task = bar.add_task(video.name, total=None)
            try:
                frames = video_info(video).frames or None
                bar.update(task, total=min(frames, max_frames) if frames and max_frames else max_frames or frames)
                result = segmenter.segment(video, phrases, max_frames, partial(bar.advance, task))
                answers[str(video)] = write_outputs(result, out / name, overlay_frames)
            except UserError as error:
                if len(videos) == 1:
                    raise
                bar.console.print(
                    f"Error: {error.format_message()}", style="red", markup=False, highlight=False, soft_wrap=True
                )
                failed = True
    click.echo(json.dumps(answers, indent=2, ensure_ascii=False))
    if failed:
        raise SystemExit(2)
