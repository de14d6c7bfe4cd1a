"""The training set: what is dropped and why, normalised names, split, no leak of the test split."""

import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.records import Thinking, write_rows
from qwenlab.thinkseg.trainset import Trainset, build, fault_of, normalised, run

PARAMS = Trainset(seed=0, train_share=0.8, min_description=5)


def summary(**changes) -> dict:
    return {
        "key_points": ["one point", "two points", "three points"],
        "primary": [{"category": "woman", "appearance": "white top, wet hair"}],
        "secondary": [], "emotion": ["shy"], "sam3_phrases": ["white woman"], **changes,
    }  # fmt: skip


def thinking(number: int, source: str = "a", split: str = "label") -> Thinking:
    return Thinking(
        id=f"{source}{number}", source=source, split=split, thinker="omni", question="Q?", text="", context="c",
        thinking="t", answer="A",
    )  # fmt: skip


THINKINGS = [*(thinking(n, "a") for n in range(30)), *(thinking(n, "b") for n in range(10))]
GOOD = [{"id": one.id, "summary": summary()} for one in THINKINGS]


def test_the_split_is_80_to_20_in_every_source():
    train, validation, dropped = build(THINKINGS, GOOD, PARAMS)
    assert [sum(row["source"] == s for row in part) for part in (train, validation) for s in "ab"] == [24, 8, 6, 2]
    assert not dropped and not {row["id"] for row in train} & {row["id"] for row in validation}


def test_a_duplicate_video_id_is_dropped():
    assert build(THINKINGS, [*GOOD, GOOD[0]], PARAMS)[2] == {"duplicate video_id": 1}


def test_the_test_split_never_enters():
    held_out = thinking(99, "a", "test")
    train, validation, dropped = build(
        [*THINKINGS, held_out], [*GOOD, {"id": held_out.id, "summary": summary()}], PARAMS
    )
    assert dropped == {"held out": 1} and held_out.id not in {row["id"] for row in train + validation}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"primary": [{"category": "man", "appearance": "[color] shirt"}]}, "placeholder"),
        ({"primary": [{"category": "man", "appearance": "tall"}]}, "short description"),
        ({"key_points": ["only one"]}, "incomplete"),
        ({"sam3_phrases": []}, "incomplete"),
        ({"primary": []}, "incomplete"),
        ({"sam3_phrases": ["green car"]}, "against the schema"),
        ({"secondary": [{"category": "car", "appearance": f"red, place {n}"} for n in range(5)]}, "against the schema"),
    ],
)
def test_what_cannot_be_learned_from_has_a_short_reason(changes: dict, why: str):
    assert fault_of(summary(**changes), PARAMS) == why


def test_no_summary_is_a_reason_too():
    assert fault_of(None, PARAMS) == "no summary" and fault_of(summary(), PARAMS) == ""


def test_categories_get_their_standard_names_in_phrases_too():
    result = normalised(summary())
    assert result["primary"][0]["category"] == "person" and result["sam3_phrases"] == ["white person"]


def test_nothing_left_to_learn_from_is_an_error(tmp_path):
    write_rows(tmp_path / "t.jsonl", [thinking(1)])
    write_rows(tmp_path / "s.jsonl", [{"id": "a1", "summary": None}])
    with pytest.raises(UserError, match="0 rows to train on"):
        run(PARAMS, tmp_path / "t.jsonl", tmp_path / "s.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_are_instruction_input_output():
    row = build(THINKINGS, GOOD, PARAMS)[0][0]
    assert row["input"] == "<context>c</context><think>t</think>" and row["output"].startswith('{"key_points":')
    assert row["instruction"]
