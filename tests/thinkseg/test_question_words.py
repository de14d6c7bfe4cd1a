"""Phrases from a question's own words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.thinkseg.question_words import phrases_of
from qwenlab.thinkseg.questions import ASKED


@pytest.mark.parametrize("frame", [frame for frames in ASKED.values() for frame in frames])
def test_our_questions_give_the_phrase_that_they_ask_about_first(frame: str):
    assert phrases_of(frame.format(phrase="red circle"))[0] == "red circle"


def test_longer_runs_come_first_and_stop_words_are_no_phrases():
    found = phrases_of("What are the man's feelings toward the woman in the white floral dress?")
    assert found[0] == "white floral dress" and "woman" in found and "the" not in found


def test_chinese_runs_are_taken_whole():
    assert phrases_of("视频中的男士，对女士是什么感情？") == ["视频中的男士", "对女士是什么感情"]


@given(st.text(max_size=80))
def test_at_most_four_distinct_phrases_without_blanks_around(text: str):
    found = phrases_of(text)
    assert len(found) <= 4 and len(set(found)) == len(found) and all(one == one.strip() and one for one in found)
