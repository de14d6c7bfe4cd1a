"""The grammar of summaries: which SAM3 phrases may follow each other."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.thinkseg.grammar import TURN, _Row, choices, grammar_tokenizer, rest_schema, unnamed, written
from qwenlab.thinkseg.summary import Entity, parse_summary

THINGS = [
    ("large cyan, on the left", "square"), ("small cyan, at the top", "square"), ("small red, on the left", "circle"),
]  # fmt: skip


def answer(phrases: list[str], things=tuple(THINGS)) -> str:
    entities = [{"appearance": looks, "category": category} for looks, category in things]
    value = {"key_points": ["one point", "two points", "three points"], "primary": entities[:1],
             "secondary": entities[1:], "emotion": ["calm"], "sam3_phrases": phrases}  # fmt: skip
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture(scope="module")
def tokenizer():
    from qwenlab.core.tokenizer import train_tokenizer

    return train_tokenizer([answer(["large cyan square", "red circle"])] * 3, 320)


def passes(tokenizer, text: str) -> bool:
    """Whether the grammar lets every token of an answer pass, and lets it end there."""
    row = _Row(grammar_tokenizer(tokenizer, len(tokenizer)))
    for token in tokenizer(text)["input_ids"]:
        bits = np.unpackbits(np.frombuffer(row.matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        if row.matcher.is_stopped() or not bits[token]:
            return False
        row.take(token)
    return row.matcher.is_accepting()


@pytest.mark.parametrize(
    "phrases",
    [
        ["red circle"],
        ["cyan square", "red circle"],
        ["red circle", "large cyan square", "small cyan square"],
        ["square", "small red circle"],
    ],
)
def test_phrases_of_different_things_pass(tokenizer, phrases: list[str]):
    assert passes(tokenizer, answer(phrases))
    assert parse_summary(answer(phrases)).sam3_phrases == phrases


@pytest.mark.parametrize(
    "phrases",
    [
        ["red circle", "red circle"],
        ["red circle", "small red circle"],  # the same thing in other words
        ["cyan square", "large cyan square"],  # the first phrase names both squares
        ["cyan square", "red circle", "circle"],  # all are named
        ["green circle"],
        [],
    ],
)
def test_no_thing_is_named_again_and_none_that_is_not_listed(tokenizer, phrases: list[str]):
    assert not passes(tokenizer, answer(phrases))


def test_a_phrase_names_all_things_that_allow_it():
    things = [Entity(appearance=looks, category=category) for looks, category in THINGS]
    assert unnamed(things, ["cyan square"]) == things[2:]
    assert unnamed(things, ["large cyan square"]) == things[1:]
    assert choices(things, ["square", "red circle"]) == []


def test_a_phrase_that_is_not_finished_is_not_written():
    assert written('["calm"],"sam3_phrases":["red ci') == []
    assert written('["calm"],"sam3_phrases":["red circle","cy') == ["red circle"]
    assert written('["ca') == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["large", "small"]), st.sampled_from(["red", "cyan"]), st.sampled_from("ab")),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_there_is_always_a_way_to_end(looks):
    """Whatever things are listed, alike or not: every list of phrases that the schema begins, it can end."""
    things = [(f"{size} {color}, on the left", f"shape {kind}") for size, color, kind in looks]
    head = answer(["x"], things).partition(TURN)[0]
    for option in rest_schema(head)["properties"]["sam3_phrases"]["anyOf"]:
        named = [one["const"] for one in option["prefixItems"]]
        assert option["minItems"] == len(named) <= option["maxItems"]
        assert (option["items"] is False) == (option["maxItems"] == len(named))
