"""Arms and their phrases; true things against tracks; numbers of an arm."""

import json
from pathlib import Path

import numpy as np
import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg import rle
from qwenlab.thinkseg.clips import make_clip, read_truth, write_clip
from qwenlab.thinkseg.records import Record
from qwenlab.thinkseg.segment import ObjectTrack, Segmentation
from qwenlab.thinkseg.segment_eval import absent_phrases, ask, judge, phrases_by_clip, summary
from qwenlab.thinkseg.video import video_info


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    records, truths = [], {}
    for index in range(2):
        clip = make_clip("crowd", 5, index)
        path = write_clip(clip, folder)
        question = f"Which way does the {clip.things[0].phrase} move?"
        records.append(Record(id=clip.clip_id, source="crowd", video=str(path), question=question, split="test"))
        truths[clip.clip_id] = read_truth(folder, clip.clip_id)
    return records, truths


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_oracle_has_all_true_phrases_and_question_those_in_its_words(clips):
    records, truths = clips
    oracle = phrases_by_clip("oracle", records, truths, None)[0]
    question = phrases_by_clip("question", records, truths, None)[0]
    for record in records:
        true = [thing.phrase for thing in truths[record.id].things]
        assert oracle[record.id] == true and question[record.id] == true[:1]


def test_phrases_of_summaries_come_by_seed_and_a_failed_summary_has_none(clips, tmp_path: Path):
    records, truths = clips
    rows = [{"id": r.id, "seed": s, "sam3_phrases": ["red circle"] if s else None} for s in (0, 1) for r in records]
    write_rows(tmp_path / "scripted.jsonl", rows)
    by_seed = phrases_by_clip("phrases", records, truths, tmp_path)
    assert by_seed == {0: {r.id: [] for r in records}, 1: {r.id: ["red circle"] for r in records}}


def test_a_missing_summary_file_clip_or_arm_is_one_sentence(clips, tmp_path: Path):
    records, truths = clips
    with pytest.raises(UserError, match=r"omni\.jsonl: cannot be read"):
        phrases_by_clip("omni", records, truths, tmp_path)
    write_rows(tmp_path / "omni.jsonl", [{"id": records[0].id, "seed": 0, "sam3_phrases": []}])
    with pytest.raises(UserError, match=f"seed 0 has no summary of {records[1].id}"):
        phrases_by_clip("omni", records, truths, tmp_path)
    with pytest.raises(UserError, match="arm 'best' is unknown"):
        phrases_by_clip("best", records, truths, tmp_path)


def test_absent_phrases_fit_nothing_and_those_of_a_right_colour_come_first(clips):
    truth = clips[1][clips[0][0].id]
    names = absent_phrases(truth, 3, np.random.default_rng(0))
    colors = {thing.color for thing in truth.things}
    assert len(names) == 3 and not set(names) & {thing.phrase for thing in truth.things}
    assert all(name.split()[0] in colors for name in names)


def test_the_truth_as_tracks_scores_one_and_no_phrases_score_nearly_nothing(clips):
    records, truths = clips
    truth = truths[records[0].id]
    tracks = []
    for k, thing in enumerate(truth.things):
        track = ObjectTrack(k, thing.phrase)
        for frame in range(len(truth.masks)):
            if truth.masks[frame, k].any():
                track.frames.append(frame)
                track.masks.append(rle.encode(truth.masks[frame, k]))
        tracks.append(track)
    phrases = [thing.phrase for thing in truth.things]
    found = Segmentation(records[0].video, phrases, 24, video_info(records[0].video), tracks)
    perfect, nothing = judge(found, truth), judge(None, truth)
    assert all(score.jf == 1 for score in perfect.scores) and perfect.false_tracks == 0
    assert all(score.jf < 0.2 for score in nothing.scores) and len(nothing.scores) == len(truth.things)


def test_means_are_over_things_not_over_clips():
    rows = [
        {
            "source": "drift",
            "things": 1,
            "jf": 1.0,
            "j": 1.0,
            "f": 1.0,
            "success": 1.0,
            "switches": 0,
            "false_tracks": 0,
        },
        {
            "source": "crowd",
            "things": 3,
            "jf": 0.0,
            "j": 0.0,
            "f": 0.0,
            "success": 0.0,
            "switches": 2,
            "false_tracks": 1,
        },
    ]
    numbers = summary(rows)
    assert numbers["jf"] == 0.25 and numbers["jf_by_source"] == {"crowd": 0.0, "drift": 1.0}
    assert numbers["id_switches_per_track"] == 0.5 and numbers["false_tracks_per_clip"] == 0.5


def test_a_phrase_that_sam3_cannot_take_finds_nothing_and_the_others_are_segmented(root):
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from qwenlab.thinkseg.segment import Segmenter

    asked = []
    tokenizer = AutoTokenizer.from_pretrained(root / "data/standins/sam3")
    segmenter = Segmenter(SimpleNamespace(processor=SimpleNamespace(tokenizer=tokenizer)))
    segmenter.segment = lambda video, phrases: asked.append((video, phrases)) or "masks"
    record = SimpleNamespace(video="v.mp4")
    assert ask(segmenter, record, ["red circle", "a sentence about a circle " * 4, " "]) == "masks"
    assert asked == [("v.mp4", ["red circle"])]
    assert ask(segmenter, record, ["a sentence about a circle " * 4]) is None
    assert ask(segmenter, record, []) is None
