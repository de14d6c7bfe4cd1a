"""Numbers of the arms (teacher, student, base) and of the thinkers (scripted, omni) on the held-out clips."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qwenlab.core.io import write_csv, write_json
from qwenlab.core.summary import medians, rounded
from qwenlab.thinkseg.judge import compare, judge_thinking, reference
from qwenlab.thinkseg.records import Record, Thinking, read_models, read_records, read_rows
from qwenlab.thinkseg.sources import facts, question_of
from qwenlab.thinkseg.summary import Summary, has_placeholder
from qwenlab.thinkseg.thinking import PARTS, parse

COLUMNS = ("seed", "id", "source", "valid", "placeholder", "object_f1", "attribute_recall", "key_points", "emotion",
           "primary", "phrase_f1")  # fmt: skip
SAW = ("id", "source", "format", "usable", "answer", "tone", "color_recall", "object_recall", "object_precision",
       "attribute_recall")  # fmt: skip


def mean(rows: Iterable[dict], column: str) -> float:
    """Mean of a column over the rows that have a number there."""
    values = [row[column] for row in rows if row[column] == row[column]]
    return sum(values) / len(values) if values else 0.0


def wanted_summaries(records: Sequence[Record], labels: str | Path | None) -> dict[str, Summary]:
    """id -> the right summary: from the facts beside a procedural clip, else the teacher's."""
    teacher = {row["id"]: row["summary"] for row in read_rows(labels)} if labels else {}
    found = {}
    for record in records:
        if Path(record.video).with_suffix(".json").is_file():
            things, tone = facts(record)
            found[record.id] = reference(things, tone, question_of(record, things)[0])
        elif record.id in teacher:
            found[record.id] = Summary.model_validate(teacher[record.id])
    return found


def leaves_holes(row: dict[str, Any]) -> bool:
    """Whether any string of an answer is a placeholder, also of an answer that breaks the schema."""
    try:
        waiting = [row["summary"] or json.loads(row.get("text", ""))]
    except ValueError:
        return has_placeholder(row.get("text", ""))
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and has_placeholder(value):
            return True
        waiting += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return False


def score_summaries(rows: Iterable[dict[str, Any]], wanted: dict[str, Summary]) -> list[dict[str, Any]]:
    """A line of numbers a summary; one that breaks the schema counts as nothing found."""
    lines = []
    for row in rows:
        if row["id"] not in wanted:
            continue
        summary = Summary.model_validate(row["summary"]) if row["summary"] else None
        lines.append(
            {
                "seed": row.get("seed", 0), "id": row["id"], "source": row["source"], "valid": int(summary is not None),
                "placeholder": int(leaves_holes(row)), **compare(summary, wanted[row["id"]]),
            }
        )  # fmt: skip
    return lines


def score_arm(
    arm: str, records: str | Path, summaries: str | Path, labels: str | Path, cost: float, metrics: str | Path
) -> None:
    """Write `<arm>.csv` (a row a clip and seed) and `<arm>.json` (medians over seeds, and every seed).

    Args:
        cost: of one summary in USD.
    """
    held_out = [one for one in read_records(records) if one.split == "test"]
    wanted = wanted_summaries(held_out, labels)
    lines = score_summaries((row for row in read_rows(summaries) if row["id"] in wanted), wanted)
    by_seed = {}
    for seed in sorted({line["seed"] for line in lines}):
        mine = [line for line in lines if line["seed"] == seed]
        by_seed[str(seed)] = rounded({column: mean(mine, column) for column in COLUMNS[3:]})
    write_csv(Path(metrics) / f"{arm}.csv", lines, COLUMNS)
    found = {**medians(by_seed), "clips": len(wanted), "cost_usd_a_sample": float(f"{cost:.6g}"), "seeds": by_seed}
    write_json(Path(metrics) / f"{arm}.json", found)
    print(f"{arm}: {medians(by_seed)}", flush=True)


def score_thinker(
    name: str, records: str | Path, thinkings: str | Path, summaries: str | Path, labels: str | Path, out: Path
) -> None:
    """Write `<out>.csv` and `<out>.json`: what a thinker saw and heard, and what the student makes of it."""
    held_out = {one.id: one for one in read_records(records) if one.split == "test"}
    lines = []
    for one in read_models(thinkings, Thinking):
        record = held_out.get(one.id)
        if record is None:
            continue
        known = Path(record.video).with_suffix(".json").is_file()
        saw = judge_thinking(one.context, *facts(record)) if known else dict.fromkeys(SAW[5:], math.nan)
        line = {
            "id": one.id,
            "source": one.source,
            "format": int(all(parse(one.text).get(part) for part in PARTS)),
            "usable": int(not one.problem),
        }
        lines.append({**line, "answer": int(one.answer == record.answer), **saw})
    wanted = wanted_summaries(list(held_out.values()), labels)
    scored = score_summaries(read_rows(summaries), wanted)
    found: dict[str, Any] = {column: mean(lines, column) for column in SAW[2:]}
    found["clips"] = float(len(lines))
    found["summary"] = {column: mean(scored, column) for column in COLUMNS[3:]}
    rows = [{key: "" if value != value else value for key, value in line.items()} for line in lines]
    write_csv(out.with_suffix(".csv"), rows, SAW)
    write_json(out.with_suffix(".json"), rounded(found))
    print(f"{name}: {rounded(found)}", flush=True)
