"""The schema of summaries: what it takes, what it refuses, and what is derived from it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.thinkseg.categories import normalise
from qwenlab.thinkseg.summary import Entity, Summary, has_placeholder, made_from, parse_summary, phrase_tokens


def value(**changes) -> dict:
    """A good summary with changes."""
    return {
        "key_points": ["The man smiles at her", "His voice is soft", "He loves her"],
        "primary": [{"category": "person", "appearance": "man in red floral shirt, smiling warmly"}],
        "secondary": [{"category": "sofa", "appearance": "brown, in background"}],
        "emotion": ["love"],
        "sam3_phrases": ["man in red floral shirt", "brown sofa"],
        **changes,
    }


def problem(**changes) -> str:
    with pytest.raises(ValueError) as caught:
        parse_summary(json.dumps(value(**changes)))
    return str(caught.value)


def test_the_seeds_example_is_a_good_summary():
    summary = parse_summary(json.dumps(value()))
    assert summary.instruction() == "Segment in the video: man in red floral shirt, brown sofa."
    assert "- person: man in red floral shirt, smiling warmly" in summary.markdown()


def test_an_answer_in_a_code_fence_is_read():
    assert parse_summary(f"```json\n{json.dumps(value())}\n```").emotion == ["love"]


@pytest.mark.parametrize("hole", ["[color] shirt", "shirt of N/A color", "<clothing> and hat", "wearing ... today"])
def test_a_placeholder_is_refused(hole: str):
    assert has_placeholder(hole)
    assert "primary" in problem(primary=[{"category": "person", "appearance": hole}]) or "placeholder" in problem(
        primary=[{"category": "person", "appearance": hole}]
    )


def test_five_things_are_refused():
    things = [{"category": "person", "appearance": f"man number {n}"} for n in "abc"]
    more = [{"category": "car", "appearance": f"red, place {n}"} for n in "ab"]
    text = problem(primary=things, secondary=more, sam3_phrases=["man number a person"])
    assert "5 things; expected at most 4" in text


def test_a_phrase_of_more_than_32_tokens_is_refused():
    long = "person " + "in a very red shirt " * 8
    assert phrase_tokens(long) > 32
    assert "at most 32" in problem(sam3_phrases=[long])


def test_empty_phrases_are_refused():
    assert problem(sam3_phrases=[])
    assert problem(sam3_phrases=[" "])


def test_a_phrase_must_be_made_from_a_listed_thing():
    assert "not made from a listed thing" in problem(sam3_phrases=["green car"])


def test_a_phrase_that_stands_there_twice_is_refused():
    assert "stands there twice" in problem(sam3_phrases=["brown sofa", "Brown  sofa"])


def test_two_key_points_are_too_few():
    assert "key_points" in problem(key_points=["one point", "two points"])


def test_an_unknown_key_is_refused():
    assert "mood" in problem(mood="happy")


@pytest.mark.parametrize("text", ["", "no", "{", '{"key_points": ["a', "[]", "null"])
def test_truncated_or_no_json_is_one_sentence(text: str):
    with pytest.raises(ValueError) as caught:
        parse_summary(text)
    assert "\n" not in str(caught.value)


def test_mixed_chinese_and_english_is_fine():
    mixed = value(
        primary=[{"category": "女人", "appearance": "白色上衣, wet hair, shy"}],
        secondary=[],
        sam3_phrases=["白色上衣的女人"],
    )
    summary = parse_summary(json.dumps(mixed, ensure_ascii=False))
    assert normalise(summary.primary[0].category) == "person"
    assert made_from("woman", Entity(category="person", appearance="white top, wet hair"))


@given(st.text(max_size=400))
def test_any_text_is_a_summary_or_a_value_error(text: str):
    with contextlib.suppress(ValueError):
        assert isinstance(parse_summary(text), Summary)


@given(
    st.text("abcdefgh ", min_size=6, max_size=40).map(str.strip).filter(lambda t: len(t) > 5),
    st.sampled_from(["person", "car", "circle"]),
)
def test_every_phrase_that_a_thing_allows_is_made_from_it(appearance: str, category: str):
    thing = Entity(category=category, appearance=appearance)
    assert all(made_from(phrase, thing) for phrase in thing.phrases())
