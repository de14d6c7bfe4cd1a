"""`qwenlab think`: from videos and a question to summaries and mask videos (seed 004, "full pipeline").

Results go to stdout as JSON, everything else to stderr and to the folder that --out names.
"""

import json
from pathlib import Path

import click

from qwenlab.core.errors import UserError
from qwenlab.core.params import load, load_raw, shown, where

MADE = Path("data") / "thinkseg"  # what the pipeline writes


@click.command(context_settings={"max_content_width": 110})
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--question", help="What to think about; the same for all VIDEOS.")
@click.option("--options", multiple=True, help='An answer option, such as "A. Romantic affection"; once for each.')
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help='In the place of VIDEOS: JSON {"samples": [{"video_path", "question", "answer_options"}, ...]}.',
)
@click.option("--num-samples", type=click.IntRange(1), help="Stop after so many samples of --config.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs/full_pipeline"), show_default=True)
@click.option("--max-frames", type=click.IntRange(1), help="Frames to segment, at most; by default all.")
@click.option("--overlay-frames", is_flag=True, help="Write every frame with its masks as a PNG, too.")
@click.option(
    "--scripted",
    is_flag=True,
    help="Only for procedural clips: a thinking written from the facts beside the video, not by a model that watches.",
)
@click.option("--humanomniv2-model", help="Thinker: folder or hub id; by default that of the active profile.")
@click.option("--base-model", help="Base of the summariser; by default that of the active profile.")
@click.option("--lora-model", type=click.Path(path_type=Path), help="Its adapter; by default the first seed's.")
@click.option("--sam3-model", help="SAM3: folder or hub id; by default that of the active profile.")
def think(
    videos: tuple[Path, ...],
    question: str | None,
    options: tuple[str, ...],
    config: Path | None,
    num_samples: int | None,
    out: Path,
    max_frames: int | None,
    overlay_frames: bool,
    scripted: bool,
    **models,
) -> None:
    """Think about a --question on VIDEOS, summarise the thinking, and segment what the summary names.

    Writes for each video result.json (thinking, answer, summary, statistics), segmentation.json and mask_video.mp4 (all
    objects in distinct colours, a legend, the original sound), and one full_pipeline_results.json. A bad video is
    reported, and the others go on; the exit code is then 2.

    \b
    qwenlab think clip.mp4 --question "Where is the red circle at first?" --options "A. left" --options "B. right"
    qwenlab think --config demo_config.json --num-samples 1
    """
    from rich.console import Console

    from qwenlab.core.progress import progress
    from qwenlab.thinkseg.think import run

    records = records_of(videos, question, options, config)[:num_samples]
    chain = chain_of(models, scripted, max_frames, overlay_frames)
    console = Console(stderr=True)
    with progress(console=console) as bar:
        task = bar.add_task("thinking and segmenting", total=2 * len(records))
        results = run(
            chain,
            records,
            out,
            lambda: bar.advance(task),
            lambda line: console.print(f"Error: {line}", style="red", markup=False, highlight=False),
        )
    click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    if any("error" in result for result in results):
        raise SystemExit(2)


def records_of(videos: tuple[Path, ...], question: str | None, options: tuple[str, ...], config: Path | None) -> list:
    """What the command line asks for, as records.

    Raises:
        UserError: on neither videos nor a config, or both, or no question.
    """
    from qwenlab.thinkseg.records import Record
    from qwenlab.thinkseg.segment_cli import folder_names
    from qwenlab.thinkseg.thinking import read_demo

    if bool(videos) == bool(config):
        raise UserError("Expected either VIDEOS with --question, or --config, and not both.")
    if config:
        return read_demo(config)
    if not question or not question.strip():
        raise UserError("--question is missing: what should be thought about?")
    return [
        Record(id=name, source="command", video=str(video), question=question.strip(), options=list(options))
        for name, video in zip(folder_names(videos), videos, strict=True)
    ]


def chain_of(models: dict, scripted: bool, max_frames: int | None, overlay_frames: bool):
    """The chain of the active profile, with the models of the command line in it."""
    from qwenlab.thinkseg.omni import Thinker
    from qwenlab.thinkseg.sam3 import Sam3Params
    from qwenlab.thinkseg.student import StudentRuntime
    from qwenlab.thinkseg.summarize import Decode
    from qwenlab.thinkseg.think import Chain
    from qwenlab.thinkseg.thinking import Checks

    def changed(params, name: str):
        return params.model_copy(update={"model": models[name]}) if models[name] else params

    adapter = models["lora_model"] or default_student()
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{adapter}: holds no adapter_config.json; train the student first (make repro), or name one.")
    return Chain(
        thinker=changed(load("thinkseg.thinker", Thinker), "humanomniv2_model"),
        checks=load("thinkseg.checks", Checks),
        runtime=changed(load("thinkseg.runtime", StudentRuntime), "base_model"),
        decode=load("thinkseg.decode", Decode),
        adapter=adapter,
        sam3=changed(load("thinkseg.sam3", Sam3Params), "sam3_model"),
        scripted=scripted,
        max_frames=max_frames,
        overlay_frames=overlay_frames,
    )


def default_student() -> Path:
    """The student of the first seed."""
    seeds = load_raw("thinkseg").get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise UserError(f"{where()}: thinkseg.seeds is {shown(seeds)}; expected a list of seeds.")
    return MADE / "student" / f"seed{seeds[0]}"
