"""Pictures of the segmentation: a strip of frames with masks, and a mask video, of one held-out clip a source.

Rows of the strip: what is true, what the student's phrases find, what the question's own words find. The clips are
the first of each source with two or more things: not chosen by how well they went.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qwenlab.core.io import atomic_path
from qwenlab.core.media import write_image
from qwenlab.thinkseg import rle
from qwenlab.thinkseg.clips import Truth, read_truth
from qwenlab.thinkseg.overlay import Color, color_of, paint
from qwenlab.thinkseg.records import Record, read_records
from qwenlab.thinkseg.segment import Segmentation, Segmenter, painted
from qwenlab.thinkseg.segment_eval import phrases_by_clip
from qwenlab.thinkseg.video import read_frames, write_video
from qwenlab.thinkseg.vocabulary import SOURCES

AT = (0, 8, 12, 16, 23)  # frames of the strip
SCALE, GAP, LABEL = 2, 6, 116  # pixels
ROWS = ("true", "student's phrases", "question's words")


def choose(records: Sequence[Record]) -> list[tuple[Record, Truth]]:
    """For each source the first held-out clip with at least two things."""
    chosen = []
    for source in SOURCES:
        for record in records:
            if record.source == source and record.split == "test":
                truth = read_truth(Path(record.video).parent, record.id)
                if len(truth.things) > 1:
                    chosen.append((record, truth))
                    break
    return chosen


def masks_at(result: Segmentation | None, frame: int, order: Sequence[str]) -> list[tuple[Color, np.ndarray]]:
    """Masks of a frame; a phrase has the colour of the thing that it names, if there is one."""
    masks = []
    for track in result.objects if result else []:
        if frame in track.frames:
            index = order.index(track.phrase) if track.phrase in order else len(order) + track.object_id
            masks.append((color_of(index), rle.decode(track.masks[track.frames.index(frame)])))
    return masks


def grey(pixels: np.ndarray) -> np.ndarray:
    """A frame without its colours, which would mix with those of the masks."""
    value = pixels @ np.array([0.299, 0.587, 0.114])
    return (40 + 0.7 * value[..., None].repeat(3, -1)).astype(np.uint8)


def strip(rows: Sequence[tuple[str, str, Sequence[np.ndarray]]]) -> Image.Image:
    """Rows of equally large pictures with two lines of words before each."""
    side = rows[0][2][0].shape[0]
    width, height = LABEL + len(AT) * (side + GAP), len(rows) * (side + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(12), ImageFont.load_default(10)
    for row, (title, words, pictures) in enumerate(rows):
        top = row * (side + GAP)
        draw.text((2, top + 4), title, fill="#1b1f23", font=font)
        for line, word in enumerate(words.split("; ")):
            draw.text((2, top + 24 + 14 * line), word[:20], fill="#57606a", font=small)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (LABEL + column * (side + GAP), top))
    return sheet


def draw(segmenter: Segmenter, records_folder: Path, summaries: Path, out: Path) -> None:
    """Write segments.png and mask_video.mp4 (with the sound of its clip) to `out`."""
    records = read_records(records_folder / "records.jsonl")
    chosen = choose(records)
    some, truths = [record for record, _ in chosen], {record.id: truth for record, truth in chosen}
    student = phrases_by_clip("phrases", some, truths, summaries)
    seed = min(student)
    question = phrases_by_clip("question", some, truths, None)[0]
    rows: list[tuple[str, str, list[np.ndarray]]] = []
    for number, (record, truth) in enumerate(chosen):
        names = list(dict.fromkeys(thing.phrase for thing in truth.things))
        frames = [grey(frame) for frame in read_frames(record.video)]
        true = [
            paint(
                frames[at],
                [(color_of(names.index(t.phrase)), truth.masks[at, k]) for k, t in enumerate(truth.things)],
                SCALE,
            )
            for at in AT
        ]
        rows.append((f"{record.source}: {ROWS[0]}", "; ".join(names), true))
        for title, phrases in ((ROWS[1], student[seed][record.id]), (ROWS[2], question[record.id])):
            result = segmenter.segment(record.video, phrases) if phrases else None
            rows.append(
                (title, "; ".join(phrases), [paint(frames[at], masks_at(result, at, names), SCALE) for at in AT])
            )
            if title == ROWS[1] and result and (number == SOURCES.index("crossing") or len(chosen) == 1):
                with atomic_path(out / "mask_video.mp4") as path:
                    write_video(path, painted(result), result.info.fps, sound_of=record.video)
    write_image(out / "segments.png", strip(rows))
