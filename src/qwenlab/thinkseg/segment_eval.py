"""Segment the held-out clips on one arm and compare with what is true.

Arms differ in where the phrases come from: `oracle` (what is in the clip), `phrases` (the student's summaries of the
scripted thinker), `omni` (the same, of the thinking stand-in), `question` (the question's own words).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json, write_csv, write_json
from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.core.summary import medians, rounded
from qwenlab.thinkseg.clips import Truth, read_truth
from qwenlab.thinkseg.question_words import phrases_of
from qwenlab.thinkseg.records import Record, read_records
from qwenlab.thinkseg.segment import Segmentation, Segmenter
from qwenlab.thinkseg.vocabulary import PHRASES, SHAPES, phrase
from qwenlab.thinkseg.vos_metrics import Score, score_clip

ARMS = {"oracle": None, "question": None, "phrases": "scripted.jsonl", "omni": "omni.jsonl"}
COLUMNS = ["seed", "id", "source", "things", "jf", "j", "f", "switches", "success", "false_tracks", "phrases"]
COUNTED = ["seed", "id", "source", "objects", "masked_frames", "phrases"]


class SegmentParams(Params):
    """What the comparison covers."""

    clips: int = Field(ge=1, description="held-out clips; all if there are fewer")
    absent: int = Field(ge=1, description="phrases a clip that fit nothing in it; arm oracle")


@dataclass(frozen=True)
class Judged:
    """One clip under one list of phrases."""

    scores: list[Score]
    false_tracks: int  # tracks that lie on nothing true
    frames: int


def phrases_by_clip(arm: str, records: Sequence[Record], truths: Mapping[str, Truth], summaries: Path | None):
    """Seed -> clip -> phrases. Arms without a trained part have one seed, 0; a summary that failed has no phrases.

    Raises:
        UserError: on an unknown arm, or when summaries of a clip are missing.
    """
    if arm not in ARMS:
        raise UserError(f"arm {arm!r} is unknown; expected one of {', '.join(ARMS)}.")
    name = ARMS[arm]
    if name is None:
        own = {
            r.id: [t.phrase for t in truths[r.id].things] if arm == "oracle" else phrases_of(r.question)
            for r in records
        }
        return {0: own}
    path = (summaries or Path()) / name
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON lines ({error}).") from error
    by_seed: dict[int, dict[str, list[str]]] = {}
    for row in rows:
        by_seed.setdefault(int(row["seed"]), {})[row["id"]] = list(row["sam3_phrases"] or [])
    for seed, own in by_seed.items():
        if absent := [record.id for record in records if record.id not in own]:
            raise UserError(f"{path}: seed {seed} has no summary of {absent[0]}; expected one of every held-out clip.")
    return by_seed


def ask(segmenter: Segmenter, record: Record, phrases: Sequence[str]) -> Segmentation | None:
    """Segment a clip by the phrases that SAM3 takes; None when there is none.

    A summary of a weak model may have a phrase that is a whole sentence: it finds nothing, and must not end the run.
    """
    usable = [phrase for phrase in phrases if segmenter.takes(phrase)]
    return segmenter.segment(record.video, usable) if usable else None


def judge(result: Segmentation | None, truth: Truth) -> Judged:
    """Scores of one clip; without phrases nothing was found."""
    count, _, *shape = truth.masks.shape
    tracks = {o.object_id: (o.phrase, o.dense(count, (shape[0], shape[1]))) for o in result.objects} if result else {}
    things = [(thing.phrase, truth.masks[:, k]) for k, thing in enumerate(truth.things)]
    return Judged(*score_clip(tracks, things), count)


def absent_phrases(truth: Truth, count: int, rng: np.random.Generator) -> list[str]:
    """Phrases that fit nothing in the clip, first those with the colour of a thing and another shape."""
    there = {thing.phrase for thing in truth.things}
    near = {phrase(thing.color, shape) for thing in truth.things for shape in SHAPES} - there
    far = set(PHRASES) - there - near
    return [*rng.permutation(sorted(near)), *rng.permutation(sorted(far))][:count]


def _row(seed: int, record: Record, judged: Judged, phrases: Sequence[str]) -> dict:
    scores = judged.scores
    mean = {name: float(np.mean([getattr(s, name) for s in scores])) for name in ("jf", "j", "f", "success")}
    return {
        "seed": seed,
        "id": record.id,
        "source": record.source,
        "things": len(scores),
        **mean,
        "switches": sum(s.switches for s in scores),
        "false_tracks": judged.false_tracks,
        "phrases": "; ".join(phrases),
    }


def summary(rows: Sequence[Mapping]) -> dict:
    """One seed's rows as numbers: means over things (J, F, success) and over clips (switches, false tracks)."""
    weights = np.array([row["things"] for row in rows])

    def mean(name: str, some: np.ndarray) -> float:
        return float(np.average([row[name] for row in rows], weights=weights * some))

    every = np.ones(len(rows))
    sources = sorted({row["source"] for row in rows})
    return {
        **{name: mean(name, every) for name in ("jf", "j", "f")},
        "track_success": mean("success", every),
        "id_switches_per_track": sum(row["switches"] for row in rows) / int(weights.sum()),
        "false_tracks_per_clip": sum(row["false_tracks"] for row in rows) / len(rows),
        "jf_by_source": {s: mean("jf", np.array([row["source"] == s for row in rows])) for s in sources},
        "clips": len(rows),
        "things": int(weights.sum()),
    }


def absent_masks(params: SegmentParams, segmenter: Segmenter, clips: Sequence[tuple[Record, Truth]]) -> float:
    """Share of (absent phrase, frame) that has a mask."""
    rng = np.random.default_rng(0)
    masked = asked = 0
    for record, truth in clips:
        names = absent_phrases(truth, params.absent, rng)
        found = segmenter.segment(record.video, names)
        masked += sum(len({f for o in found.objects if o.phrase == name for f in o.frames}) for name in names)
        asked += len(names) * found.frames
    return masked / asked


def counts(segmenter: Segmenter, records: Sequence[Record], by_seed: Mapping[int, Mapping[str, Sequence[str]]]):
    """Rows and means where nothing is known to be true (real videos): what was found, and in how many frames."""
    rows = []
    for seed, own in sorted(by_seed.items()):
        for record in records:
            segmented = ask(segmenter, record, own[record.id])
            found = segmented.statistics() if segmented else {}
            share = found["frames_with_masks"] / found["frames"] if found else 0.0
            row = {"seed": seed, "id": record.id, "source": record.source, "phrases": "; ".join(own[record.id])}
            rows.append({**row, "objects": found.get("objects", 0), "masked_frames": share})
    means = {name: float(np.mean([row[name] for row in rows])) for name in COUNTED[3:5]} if rows else {}
    return rows, {**means, "clips": len(records)}


def run(
    params: SegmentParams, segmenter: Segmenter, arm: str, records_folder: Path, source: Path, standin: Path, out: Path
) -> None:
    """Segment and score all clips of an arm; writes `<arm>.json` and `<arm>.csv` to `out`.

    Videos without a truth beside them (`<id>.json`, as for the clips) are counted, not scored.

    Args:
        source: folder of the summaries; the arms `oracle` and `question` need none.
        standin: JSON with the quality of the SAM3 stand-in, which goes along with the arm `oracle`.
    """
    records = read_records(records_folder / "records.jsonl")
    records = [record for record in records if record.split == "test"][: params.clips]
    known = [record for record in records if Path(record.video).with_suffix(".json").is_file()]
    truths = {record.id: read_truth(Path(record.video).parent, record.id) for record in known}
    by_seed = phrases_by_clip(arm, known if arm == "oracle" else records, truths, source)
    if not known:
        rows, metrics = counts(segmenter, [] if arm == "oracle" else records, by_seed)
        write_json(out / f"{arm}.json", rounded(metrics))
        write_csv(out / f"{arm}.csv", rows, COUNTED)
        return
    judged: dict[tuple, Judged] = {}  # seeds often agree on the phrases of a clip
    rows = []
    with progress() as bar:
        task = bar.add_task(f"segment {arm}", total=len(by_seed) * len(known))
        for seed, own in sorted(by_seed.items()):
            for record in known:
                phrases = own[record.id]
                key = (record.id, *phrases)
                if key not in judged:
                    found = ask(segmenter, record, phrases)
                    judged[key] = judge(found, truths[record.id])
                rows.append(_row(seed, record, judged[key], phrases))
                bar.advance(task)
    metrics = medians({str(seed): summary([row for row in rows if row["seed"] == seed]) for seed in by_seed})
    if arm == "oracle":
        metrics["absent_masks"] = absent_masks(params, segmenter, [(r, truths[r.id]) for r in known])
        metrics["standin"] = read_json(standin)
    write_json(out / f"{arm}.json", rounded(metrics))
    write_csv(out / f"{arm}.csv", rows, COLUMNS)
