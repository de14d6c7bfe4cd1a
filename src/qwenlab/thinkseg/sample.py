"""Sampler over several data sets: ratios, a seed, no video twice, one unified record (seed 004, stage two).

Reads JSON lists (or JSON lines) of questions as IntentBench, IntentTrain and Daily-Omni have them: `problem`,
`options`, `problem_type`, `data_type`, `video` or `path`, `solution`; or `Question`, `Choice`, `Answer`, `video_id`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import safe_name, write_json
from qwenlab.core.params import Params, shown
from qwenlab.thinkseg.records import Record, read_rows, write_rows

KEYS = {
    "question": ("problem", "question", "Question"),
    "options": ("options", "answer_options", "Choice", "choices"),
    "answer": ("solution", "answer", "Answer"),
    "video": ("video", "path", "video_path", "video_id"),
    "problem_type": ("problem_type", "Type"),
}


class Source(Params):
    """One data set."""

    name: str
    file: str = Field(description="JSON list or JSON lines of questions")
    videos: str = Field(description="folder that the rows' videos lie in")
    pattern: str = Field(description="path of a video in that folder; {video} is what the row says")
    ratio: float = Field(gt=0, le=1, description="share of the sample")


class Sample(Params):
    """The sample."""

    seed: int
    count: int = Field(ge=1)
    test: float = Field(ge=0, lt=1, description="share held out from teacher and student, of every source alike")
    sources: dict[str, Source]


def _first(row: Mapping[str, Any], name: str) -> Any:
    return next((row[key] for key in KEYS[name] if row.get(key) not in (None, "")), None)


def _rows(file: str | Path) -> list[dict[str, Any]]:
    """The rows of a data set, a JSON list or JSON lines."""
    if Path(file).suffix == ".jsonl":
        return read_rows(file)
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file of questions.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{file}: expected a JSON list of objects, found {shown(value)}.")
    return value


def video_name(video: str) -> str:
    """An id that is safe in file names: the stem, with a hash where it is not."""
    stem = Path(video).stem
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", stem):
        return stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:80] or "video"
    return safe_name(f"{plain}-{hashlib.sha256(video.encode()).hexdigest()[:8]}", "video id")


def read_source(source: Source) -> list[Record]:
    """Every question of a data set as a record.

    Raises:
        UserError: when a row lacks a question or a video, or its video leads out of the folder.
    """
    records = []
    for number, row in enumerate(_rows(source.file), 1):
        question, video = _first(row, "question"), _first(row, "video")
        if not isinstance(question, str) or not isinstance(video, str):
            raise UserError(f"{source.file}, row {number}: has no question or no video: {shown(row)}.")
        relative = Path(source.pattern.format(video=video))
        if relative.is_absolute() or ".." in relative.parts:
            raise UserError(f"{source.file}, row {number}: video {video!r} leads out of {source.videos}.")
        options, answer = _first(row, "options"), _first(row, "answer")
        inside = re.search(r"<answer>(.*?)</answer>", str(answer or ""), re.DOTALL)
        records.append(
            Record(
                id=video_name(video),
                source=safe_name(source.name, "source"),
                video=(Path(source.videos) / relative).as_posix(),
                question=question.strip(),
                options=[str(option) for option in options] if isinstance(options, list) else [],
                answer=(inside[1] if inside else str(answer or "")).strip(),
                problem_type=str(_first(row, "problem_type") or "multiple choice"),
            )
        )
    return records


def draw(params: Sample) -> tuple[list[Record], dict[str, dict[str, int]]]:
    """(the sample, counts a source): duplicates dropped, shares as asked; a source that is too small gives all it has.

    The test split is stratified by source, and so is every beginning of it.
    """
    total = sum(source.ratio for source in params.sources.values())
    if abs(total - 1) > 1e-6:
        raise UserError(f"thinkseg.sample: the ratios of the sources add up to {total:g}; expected 1.")
    seen: set[str] = set()
    counts: dict[str, dict[str, int]] = {}
    keyed: list[tuple[float, str, Record]] = []
    for position, source in enumerate(params.sources.values()):
        name = source.name
        rng = np.random.default_rng([params.seed, position])
        records = read_source(source)
        wanted = round(source.ratio * params.count)
        chosen: list[Record] = []
        duplicates = 0
        for index in rng.permutation(len(records)):
            if len(chosen) == wanted:
                break
            record = records[index]
            if record.id in seen:
                duplicates += 1
                continue
            seen.add(record.id)
            chosen.append(record)
        held_out = round(params.test * len(chosen))
        for rank, record in enumerate(chosen):
            split = "test" if rank < held_out else "label"
            # Ranks as shares of the split: sorted by them, every source keeps its share in any beginning.
            share = (rank + 0.5) / held_out if split == "test" else (rank - held_out + 0.5) / (len(chosen) - held_out)
            keyed.append((share, name, record.model_copy(update={"split": split})))
        counts[name] = {
            "rows": len(records), "wanted": wanted, "taken": len(chosen), "duplicates": duplicates, "test": held_out,
        }  # fmt: skip
    return [record for _, _, record in sorted(keyed, key=lambda one: one[:2])], counts


def run(params: Sample, out: str | Path) -> None:
    """Write `records.jsonl` and `counts.json`."""
    records, counts = draw(params)
    for name, one in counts.items():
        short = f" - there are no more; {one['wanted']} were asked for" if one["taken"] < one["wanted"] else ""
        print(f"{name}: {one['taken']} of {one['rows']} questions, {one['test']} held out{short}", flush=True)
    write_rows(Path(out) / "records.jsonl", records)
    write_json(Path(out) / "counts.json", counts)
