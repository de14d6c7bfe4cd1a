"""Thinkings: parsed, checked, in shards, resumed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.records import Record, read_models
from qwenlab.thinkseg.thinking import (
    Checks,
    Thinking,
    checked,
    merge,
    parse,
    prepare,
    problem_with,
    read_demo,
    run_shard,
    shard_of,
)

CHECKS = Checks(min_length=5, max_length=100)
RECORDS = [Record(id=f"v{n}", source="s", video=f"v{n}.mp4", question=f"Q{n}?") for n in range(11)]


def texts(records: list[Record]) -> list[str]:
    return [f"<context>c {r.id}</context><think>thinking of {r.id}</think><answer>A</answer>" for r in records]


def shards(folder, count: int):
    for shard in range(count):
        run_shard(texts, RECORDS, "omni", CHECKS, 3, prepare(folder, "x", []), shard, count)
    merge(RECORDS, folder / "batches", folder)
    return (folder / "thinking.jsonl").read_bytes()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_n_shards_merged_are_one_shard(tmp_path, count: int):
    assert shards(tmp_path / "a", 1) == shards(tmp_path / "b", count)


def test_a_killed_run_goes_on_behind_its_last_batch(tmp_path):
    seen = []

    def dies(records):
        seen.append([r.id for r in records])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return texts(records)

    with pytest.raises(KeyboardInterrupt):
        run_shard(dies, RECORDS, "omni", CHECKS, 3, prepare(tmp_path, "x", []), 0, 1)
    again = []
    run_shard(lambda r: again.append(len(r)) or texts(r), RECORDS, "omni", CHECKS, 3, prepare(tmp_path, "x", []), 0, 1)
    assert again == [3, 2]


def test_other_parameters_start_over(tmp_path):
    run_shard(texts, RECORDS, "omni", CHECKS, 3, prepare(tmp_path, "x", []), 0, 1)
    assert not list(prepare(tmp_path, "y", []).glob("batch-*"))


def test_merging_before_all_shards_ran_says_what_is_missing(tmp_path):
    run_shard(texts, RECORDS, "omni", CHECKS, 3, prepare(tmp_path, "x", []), 0, 2)
    with pytest.raises(UserError, match=r"5 thinkings are missing.*v3"):
        merge(RECORDS, tmp_path / "batches", tmp_path)


def test_a_shard_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="--shard-id 4 of --num-shards 4"):
        shard_of(4, 4)
    assert shard_of(None, None) == (0, 1)


def test_the_launcher_deals_the_shards(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard_of(None, None) == (2, 4)


def test_a_missing_closing_tag_is_a_problem_not_a_crash():
    row = checked(RECORDS[0], "omni", "<context>a</context><think>went on and on", CHECKS)
    assert row.problem == "no complete <think>" and row.context == "a" and row.thinking == ""


@pytest.mark.parametrize(("length", "good"), [(4, False), (5, True), (100, True), (101, False)])
def test_length_limits_are_kept(length: int, good: bool):
    assert (problem_with({"think": "x" * length, "answer": "A"}, CHECKS) == "") is good


def test_the_letter_of_an_answer_with_options_is_taken():
    record = RECORDS[0].model_copy(update={"options": ["A. x", "B. y"]})
    assert checked(record, "omni", "<think>thinking</think><answer>B. y</answer>", CHECKS).answer == "B"


@given(st.text(max_size=200))
def test_any_text_is_parsed(text: str):
    assert set(parse(text)) <= {"context", "think", "answer"}


def test_rows_are_read_back_as_they_were(tmp_path):
    shards(tmp_path, 1)
    assert read_models(tmp_path / "thinking.jsonl", Thinking)[3].thinking == "thinking of v3"


def test_the_seeds_demo_config_is_read(root):
    records = read_demo(root / "examples" / "thinkseg" / "demo_config.json")
    assert records[0].question and records[0].options


@pytest.mark.parametrize("text", ["", "[]", '{"samples": []}', '{"samples": [{"question": "x"}]}'])
def test_a_bad_demo_config_is_one_sentence(tmp_path, text: str):
    file = tmp_path / "demo.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"demo\.json"):
        read_demo(file)
