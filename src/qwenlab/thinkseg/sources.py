"""Procedural data sets in the layout of the published ones: a folder of videos and a JSON list of questions.

They take the place of IntentBench, Daily-Omni and IntentTrain in profiles without those.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydantic import Field

from qwenlab.core.io import atomic_dir, read_json, write_text
from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.thinkseg.clips import Thing, make_clip, write_clip
from qwenlab.thinkseg.drawing import load_photos
from qwenlab.thinkseg.questions import Question, ask, kind_of
from qwenlab.thinkseg.records import Record
from qwenlab.thinkseg.vocabulary import SOURCES


class Clips(Params):
    """How many procedural clips."""

    seed: int
    photos: list[str] = Field(description="for backgrounds; no stand-in was trained on them")
    counts: dict[str, int] = Field(description="clips a source")
    processes: int = Field(ge=1)


def question_for(clip_id: str, seed: int, things: tuple[Thing, ...], tone: str) -> tuple[Question, int]:
    """The question of a clip; it follows from id and seed."""
    return ask(things, tone, np.random.default_rng([seed, *clip_id.encode()]))


def facts(record: Record) -> tuple[tuple[Thing, ...], str]:
    """(things, tone) of a record of a procedural clip."""
    value = read_json(Path(record.video).with_suffix(".json"))
    return tuple(Thing(**thing) for thing in value["things"]), value["tone"]


def question_of(record: Record, things: tuple[Thing, ...]) -> tuple[Question, int]:
    """The question of a record with the thing it is about, from its words."""
    for index, thing in enumerate(things):
        if f"the {thing.phrase}" in record.question and (kind := kind_of(record.question)):
            return Question(kind, thing.phrase, record.question, tuple(record.options), record.answer), index
    raise ValueError(f"{record.id}: {record.question!r} is no question about a procedural clip")


@cache
def _photos(assets: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return load_photos(assets, names)


def _write(item: tuple[str, int], clips: Clips, assets: str, folder: str) -> dict:
    """One clip on disk; its row in the seed's format."""
    source, index = item
    clip = make_clip(source, clips.seed, index, _photos(assets, tuple(clips.photos)))
    write_clip(clip, Path(folder) / source)
    question, _ = question_for(clip.clip_id, clips.seed, clip.things, clip.tone)
    return {
        "video": f"{source}/{clip.clip_id}.mp4", "problem": question.text, "options": list(question.options),
        "problem_type": "multiple choice", "data_type": "video", "solution": f"<answer>{question.answer}</answer>",
    }  # fmt: skip


def write_sources(clips: Clips, assets: str | Path, out: str | Path) -> None:
    """Write `<source>.json` and `<source>/<id>.mp4|json` for every source, the folder complete or not at all."""
    import json

    items = [(source, index) for source in SOURCES for index in range(clips.counts[source])]
    with atomic_dir(out) as folder, progress() as bar:
        for source in SOURCES:
            (folder / source).mkdir()
        task = bar.add_task("clips", total=len(items))
        work = partial(_write, clips=clips, assets=str(assets), folder=str(folder))
        rows = []
        with ProcessPoolExecutor(min(clips.processes, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
            for row in pool.map(work, items, chunksize=8):
                rows.append(row)
                bar.advance(task)
        for source in SOURCES:
            mine = [row for (name, _), row in zip(items, rows, strict=True) if name == source]
            write_text(folder / f"{source}.json", json.dumps(mine, indent=1, ensure_ascii=False) + "\n")
