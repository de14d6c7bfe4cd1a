"""The sampler: ratios, duplicates, the held-out split, formats of data sets, names that become paths."""

import json
from collections import Counter

import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.sample import Sample, Source, draw, read_source, video_name


def write(folder, name: str, rows: list[dict]) -> Source:
    (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return Source(name=name, file=str(folder / f"{name}.json"), videos=str(folder), pattern="{video}", ratio=0.5)


def rows(prefix: str, count: int) -> list[dict]:
    return [
        {"video": f"{prefix}{n}.mp4", "problem": f"Q{n}?", "options": ["A. x", "B. y"],
         "solution": "<answer>B</answer>", "problem_type": "multiple choice", "data_type": "video"}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def sample(tmp_path) -> Sample:
    sources = {"one": write(tmp_path, "one", rows("a", 40)), "two": write(tmp_path, "two", rows("b", 40))}
    return Sample(seed=0, count=40, test=0.2, sources=sources)


def test_every_source_gives_its_share_to_both_splits(sample):
    records, _ = draw(sample)
    assert Counter((r.source, r.split) for r in records) == {
        ("one", "label"): 16, ("two", "label"): 16, ("one", "test"): 4, ("two", "test"): 4,
    }  # fmt: skip


def test_any_beginning_of_the_test_split_has_every_source(sample):
    test = [r.source for r in draw(sample)[0] if r.split == "test"]
    assert all(abs(test[:n].count("one") - test[:n].count("two")) <= 1 for n in range(len(test)))


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(sample):
    again = draw(sample)[0]
    assert draw(sample)[0] == again != draw(sample.model_copy(update={"seed": 1}))[0]


def test_a_video_that_stands_in_two_sources_is_taken_once(tmp_path):
    sources = {"one": write(tmp_path, "one", rows("a", 10)), "two": write(tmp_path, "two", rows("a", 10))}
    records, counts = draw(Sample(seed=0, count=20, test=0.0, sources=sources))
    assert len({r.id for r in records}) == len(records) == 10
    assert counts["two"] == {"rows": 10, "wanted": 10, "taken": 0, "duplicates": 10, "test": 0}


def test_a_source_that_is_too_small_gives_what_it_has(tmp_path):
    sources = {"one": write(tmp_path, "one", rows("a", 3)), "two": write(tmp_path, "two", rows("b", 30))}
    assert draw(Sample(seed=0, count=40, test=0.0, sources=sources))[1]["one"]["taken"] == 3


def test_the_keys_of_daily_omni_are_read_too(tmp_path):
    row = {"Question": "Why?", "Choice": ["A. x"], "Answer": "A", "video_id": "abc", "Type": "Reasoning"}
    source = write(tmp_path, "daily", [row]).model_copy(update={"pattern": "{video}/{video}_video.mp4"})
    record = read_source(source)[0]
    assert (record.id, record.answer, record.problem_type) == ("abc", "A", "Reasoning")
    assert record.video.endswith("abc/abc_video.mp4")


@pytest.mark.parametrize("video", ["../../etc/passwd", "/etc/passwd", "a/../../b.mp4"])
def test_a_video_that_leads_out_of_its_folder_is_refused(tmp_path, video: str):
    with pytest.raises(UserError, match="leads out of"):
        read_source(write(tmp_path, "one", [{**rows("a", 1)[0], "video": video}]))


@pytest.mark.parametrize("video", ["x/a b.mp4", "视频.mp4", ".hidden.mp4", "a" * 300 + ".mp4", "a:b|c.mp4"])
def test_a_video_id_with_path_characters_becomes_a_safe_name(video: str):
    name = video_name(video)
    assert name.replace(".", "").replace("_", "").replace("-", "").isalnum() and name.isascii() and len(name) <= 101
    assert video_name(video) != video_name(f"y{video}")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1]"])
def test_a_bad_file_is_one_sentence(tmp_path, text: str):
    (tmp_path / "x.json").write_text(text)
    source = Source(name="x", file=str(tmp_path / "x.json"), videos=str(tmp_path), pattern="{video}", ratio=1.0)
    with pytest.raises(UserError, match=r"x\.json"):
        read_source(source)


def test_a_row_without_a_question_is_named(tmp_path):
    with pytest.raises(UserError, match="row 1: has no question"):
        read_source(write(tmp_path, "one", [{"video": "a.mp4"}]))


def test_ratios_must_add_up_to_one(sample):
    one = next(iter(sample.sources.values()))
    with pytest.raises(UserError, match=r"add up to 0\.5"):
        draw(sample.model_copy(update={"sources": {"one": one}}))
