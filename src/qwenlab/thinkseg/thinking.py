"""Thinkings for records: parse and check what a thinker writes, in shards, resumable (seed 004, stage two).

The records are cut into batches before they are dealt to shards, so that a batch holds the same records whatever the
number of shards: N shards merged are one shard, to the letter. A batch is on disk when it is done; a run that is
killed goes on behind the last one, if parameters, records and weights are what they were.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import make_dir, safe_name, write_json
from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.core.resume import fingerprint, stamp, stamped
from qwenlab.thinkseg.records import Record, Thinking, read_models, write_rows

PARTS = ("context", "think", "answer")


class Checks(Params):
    """What a thinking must be to be summarised."""

    min_length: int = Field(ge=0, description="characters of context and thinking (seed 004: 200)")
    max_length: int = Field(ge=1, description="seed 004: 3000")


def parse(text: str) -> dict[str, str]:
    """The parts of a thinker's answer; a part without its closing tag is missing.

    >>> parse("<context>a</context><think>b</think><answer>C</answer>")
    {'context': 'a', 'think': 'b', 'answer': 'C'}
    """
    found = {}
    for part in PARTS:
        inside = re.search(rf"<{part}>(.*?)</{part}>", text, re.DOTALL)
        if inside:
            found[part] = inside[1].strip()
    return found


def problem_with(parts: dict[str, str], checks: Checks) -> str:
    """Why a thinking cannot be used; empty when it can. Context is optional, as in thinkers that write none."""
    for part in ("think", "answer"):
        if not parts.get(part):
            return f"no complete <{part}>"
    length = len(parts.get("context", "")) + len(parts["think"])
    if not checks.min_length <= length <= checks.max_length:
        return f"{length} characters; expected {checks.min_length} to {checks.max_length}"
    return ""


def checked(record: Record, thinker: str, text: str, checks: Checks) -> Thinking:
    """A thinker's text as a row, with what is wrong with it."""
    parts = parse(text)
    answer = parts.get("answer", "")
    letter = re.match(r"\(?([A-Z])\b", answer)
    return Thinking(
        id=record.id, source=record.source, split=record.split, thinker=thinker, question=record.question, text=text,
        context=parts.get("context", ""), thinking=parts.get("think", ""),
        answer=letter[1] if letter and record.options else answer, problem=problem_with(parts, checks),
    )  # fmt: skip


def batches(records: Sequence[Record], size: int) -> list[list[Record]]:
    """Records in batches of `size`."""
    return [list(records[start : start + size]) for start in range(0, len(records), size)]


def run_shard(
    think: Callable[[list[Record]], list[str]],
    records: Sequence[Record],
    thinker: str,
    checks: Checks,
    batch: int,
    folder: Path,
    shard: int,
    shards: int,
) -> None:
    """Think about every batch of one shard that `folder` does not have yet; each becomes a file of its own."""
    todo = list(enumerate(batches(records, batch)))[shard::shards]
    with progress() as bar:
        task = bar.add_task(f"{thinker} thinks (shard {shard + 1} of {shards})", total=sum(len(b) for _, b in todo))
        for number, group in todo:
            file = folder / f"batch-{number:06d}.jsonl"
            if not file.exists():
                texts = think(group)
                write_rows(file, [checked(r, thinker, text, checks) for r, text in zip(group, texts, strict=True)])
            bar.advance(task, len(group))


def merge(records: Sequence[Record], folder: Path, out: Path) -> dict[str, float]:
    """All batches as `thinking.jsonl`, in the order of the records; returns what went into it.

    Raises:
        UserError: when a shard has not run, or a thinking is there twice.
    """
    rows = [row for file in sorted(folder.glob("batch-*.jsonl")) for row in read_models(file, Thinking)]
    by_id = {row.id: row for row in rows}
    if len(by_id) < len(rows):
        raise UserError(f"{folder}: holds a thinking twice; remove the folder and run the stage again.")
    if absent := [record.id for record in records if record.id not in by_id]:
        raise UserError(
            f"{folder}: {len(absent)} thinkings are missing (the first one: {absent[0]}); run the other shards first."
        )
    ordered = [by_id[record.id] for record in records]
    write_rows(out / "thinking.jsonl", ordered)
    lengths = [len(row.context) + len(row.thinking) for row in ordered]
    report = {
        "records": len(ordered), "good": sum(not row.problem for row in ordered),
        "mean_length": sum(lengths) / max(1, len(lengths)),
    }  # fmt: skip
    write_json(out / "report.json", report)
    return report


def prepare(out: str | Path, settings: object, inputs: Sequence[str | Path]) -> Path:
    """The folder for batches; batches made with other parameters, inputs or code are thrown away first."""
    folder = make_dir(Path(out) / "batches")
    now = fingerprint(settings, inputs, [Path(__file__)])
    if stamped(folder) != now:
        if any(folder.glob("batch-*")):
            print(f"{folder}: made with other parameters, inputs or code; starts over.", flush=True)
        shutil.rmtree(folder)
        stamp(make_dir(folder), now)
    return folder


def shard_of(shard_id: int | None, num_shards: int | None) -> tuple[int, int]:
    """(shard, number of shards): from the command line, or from the launcher (accelerate), or 0 of 1.

    Raises:
        UserError: when there is no such shard.
    """
    shard = int(os.environ.get("RANK", "0")) if shard_id is None else shard_id
    shards = int(os.environ.get("WORLD_SIZE", "1")) if num_shards is None else num_shards
    if shards < 1 or not 0 <= shard < shards:
        raise UserError(f"--shard-id {shard} of --num-shards {shards}: expected 0 to {max(0, shards - 1)}.")
    return shard, shards


def read_demo(path: str | Path) -> list[Record]:
    """The seed's demo config: `{"samples": [{"video_path", "question", "answer_options"}]}`.

    Raises:
        UserError: when it has another form.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such demo config.") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    samples = value.get("samples") if isinstance(value, dict) else None
    if not isinstance(samples, list) or not samples:
        raise UserError(f'{path}: expected {{"samples": [...]}} with at least one sample.')
    records = []
    for number, one in enumerate(samples, 1):
        if not isinstance(one, dict) or not isinstance(one.get("video_path"), str) or not one.get("question"):
            raise UserError(f"{path}, sample {number}: expected the keys video_path and question.")
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(one["video_path"]).stem).strip("._-") or "video"
        records.append(
            Record(
                id=safe_name(f"{name}-{number}", "sample id"), source="demo", video=one["video_path"],
                question=str(one["question"]), options=[str(text) for text in one.get("answer_options", [])],
            )
        )  # fmt: skip
    return records
