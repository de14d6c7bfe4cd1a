"""The training set of the student: filter, normalise, dedupe, split (seed 004, stage four).

Rows are instruction, input, output. A report says what was dropped, and why. Rows of the test split never enter.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_json
from qwenlab.core.params import Params
from qwenlab.thinkseg.categories import normalise
from qwenlab.thinkseg.records import Thinking, read_models, read_rows, write_rows
from qwenlab.thinkseg.summary import Summary, has_placeholder

INSTRUCTION = "Summarise the thinking about a video as JSON."


class Trainset(Params):
    """Filters and split."""

    seed: int
    train_share: float = Field(gt=0, lt=1, description="the rest is for validation (seed 004: 0.8)")
    min_description: int = Field(ge=0, description="an appearance has more characters than this (seed 004: 5)")


def fault_of(value: Any, params: Trainset) -> str:
    """Why a summary is not learned from, as one of a few short names to count; empty when it is good."""
    if not isinstance(value, Mapping):
        return "no summary"
    things = [thing for part in ("primary", "secondary") for thing in value.get(part) or []]
    texts = [str(text) for thing in things for text in thing.values()]
    texts += [str(text) for part in ("key_points", "emotion", "sam3_phrases") for text in value.get(part) or []]
    if any(has_placeholder(text) for text in texts):
        return "placeholder"
    if any(len(str(thing.get("appearance", "")).strip()) <= params.min_description for thing in things):
        return "short description"
    if not value.get("primary") or not value.get("sam3_phrases") or len(value.get("key_points") or []) != 3:
        return "incomplete"
    try:
        Summary.model_validate(value)
    except ValueError:
        return "against the schema"
    return ""


def normalised(value: Mapping[str, Any]) -> dict[str, Any]:
    """A summary with standard category names, in its things and in the phrases made from them."""
    names: dict[str, str] = {}
    result = {**value}
    for part in ("primary", "secondary"):
        result[part] = []
        for thing in value[part]:
            names[thing["category"].lower()] = normalise(thing["category"])
            result[part].append({**thing, "category": normalise(thing["category"])})
    phrases = []
    for phrase in value["sam3_phrases"]:
        words = phrase.lower()
        for old, new in names.items():
            if words == old or words.endswith(f" {old}"):
                words = f"{words[: len(words) - len(old)]}{new}"
        phrases.append(words)
    return {**result, "sam3_phrases": list(dict.fromkeys(phrases))}


def row_of(thinking: Thinking, summary: Mapping[str, Any]) -> dict[str, str]:
    """One row for training."""
    output = Summary.model_validate(normalised(summary)).compact()
    return {
        "id": thinking.id, "source": thinking.source, "instruction": INSTRUCTION, "input": thinking.material,
        "output": output,
    }  # fmt: skip


def build(
    thinkings: Iterable[Thinking], summaries: Iterable[Mapping[str, Any]], params: Trainset
) -> tuple[list[dict], list[dict], dict[str, int]]:
    """(train, validation, why rows were dropped). Split by source, so that both have every source's share."""
    by_id: dict[str, Thinking] = {}
    dropped: Counter[str] = Counter()
    for one in thinkings:
        by_id.setdefault(one.id, one)
    rows: dict[str, list[dict]] = defaultdict(list)
    seen: set[str] = set()
    for row in summaries:
        thinking = by_id.get(row["id"])
        if thinking is None or thinking.problem:
            dropped["no thinking"] += 1
        elif thinking.split == "test":
            dropped["held out"] += 1
        elif row["id"] in seen:
            dropped["duplicate video_id"] += 1
        elif fault := fault_of(row.get("summary"), params):
            dropped[fault] += 1
        else:
            seen.add(row["id"])
            rows[thinking.source].append(row_of(thinking, row["summary"]))
    rng = np.random.default_rng(params.seed)
    train: list[dict] = []
    validation: list[dict] = []
    for source in sorted(rows):
        order = [rows[source][index] for index in rng.permutation(len(rows[source]))]
        cut = round(params.train_share * len(order))
        train, validation = train + order[:cut], validation + order[cut:]
    return train, validation, dict(dropped)


def run(params: Trainset, thinking_file: str | Path, summary_file: str | Path, out: str | Path) -> None:
    """Write `train.jsonl`, `validation.jsonl` and `report.json`.

    Raises:
        UserError: when nothing is left to learn from.
    """
    rows = read_rows(summary_file)
    train, validation, dropped = build(read_models(thinking_file, Thinking), rows, params)
    if not train or not validation:
        raise UserError(f"{summary_file}: {len(train)} rows to train on and {len(validation)} to validate on are left.")
    write_rows(Path(out) / "train.jsonl", train)
    write_rows(Path(out) / "validation.jsonl", validation)
    kept = len(train) + len(validation)
    candidates = kept + sum(count for why, count in dropped.items() if why != "held out")
    report = {
        "rows": len(rows), "train": len(train), "validation": len(validation), "dropped": dropped,
        "kept_share": kept / max(1, candidates),
    }  # fmt: skip
    write_json(Path(out) / "report.json", report)
    print(f"{len(train)} rows to train on, {len(validation)} to validate on; dropped: {dropped or 'none'}", flush=True)
