"""The judge: what counts as right in a summary and in a thinking."""

import numpy as np
import pytest

from qwenlab.thinkseg.clips import Thing, make_clip
from qwenlab.thinkseg.judge import compare, f1, judge_thinking, reference
from qwenlab.thinkseg.questions import KINDS, Question, ask, kind_of
from qwenlab.thinkseg.rules_teacher import summarise
from qwenlab.thinkseg.scripted import plain, think
from qwenlab.thinkseg.summary import Entity

THINGS = (
    Thing("circle", "red", "small", "left", "top"),
    Thing("square", "blue", "large", "still", "center"),
)
QUESTION = Question("motion", "red circle", "Which way does the red circle move?", ("A. left", "B. up"), "A")
RIGHT = reference(THINGS, "rising", QUESTION)


def test_the_right_summary_scores_one_everywhere():
    assert set(compare(RIGHT, RIGHT).values()) == {1.0}


def test_no_summary_scores_zero_everywhere():
    assert set(compare(None, RIGHT).values()) == {0.0}


def test_a_wrong_color_is_another_thing():
    wrong = Entity(category="circle", appearance="small green, at the top, moving left")
    found = compare(RIGHT.model_copy(update={"primary": [wrong]}), RIGHT)
    assert found["object_f1"] == 0.5 and found["primary"] == 0 and found["attribute_recall"] == 0.5


def test_a_wrong_motion_costs_one_attribute_of_eight():
    wrong = Entity(category="circle", appearance="small red, at the top, moving up")
    assert compare(RIGHT.model_copy(update={"primary": [wrong]}), RIGHT)["attribute_recall"] == pytest.approx(7 / 8)


def test_twins_are_paired_so_that_most_is_recalled():
    twins = (Thing("circle", "red", "small", "left", "top"), Thing("circle", "red", "large", "up", "left"), THINGS[1])
    question = Question("place", "blue square", "Where is the blue square at first?", ("A. center",), "A")
    wanted = reference(twins, "low", question)
    turned = wanted.model_copy(update={"secondary": wanted.secondary[::-1]})
    assert compare(turned, wanted)["attribute_recall"] == 1.0


def test_f1_counts_repeats():
    assert f1(["a", "a"], ["a"]) == pytest.approx(2 / 3) and f1([], []) == 1.0


def test_a_thinking_is_judged_by_what_it_says_is_there():
    text = "A small red circle starts at the top and moves left. No blue square is visible. A low tone plays."
    saw = judge_thinking(text, THINGS, "rising")
    assert (saw["tone"], saw["color_recall"], saw["object_recall"], saw["object_precision"]) == (0, 0.5, 0.5, 1)
    assert saw["attribute_recall"] == 0.5


@pytest.mark.parametrize("source", ["drift", "crossing", "crowd"])
def test_the_rules_read_every_thinking_of_the_script_right(source: str):
    for index in range(25):
        clip, rng = make_clip(source, 11, index), np.random.default_rng(index)
        question, asked = ask(clip.things, clip.tone, rng)
        wanted = reference(clip.things, clip.tone, question)
        for text in (think(clip.things, clip.tone, question, asked, rng),
                     plain(clip.things, clip.tone, question, asked)):  # fmt: skip
            assert compare(summarise(text), wanted)["object_f1"] == 1.0, text
            assert judge_thinking(text, clip.things, clip.tone)["object_recall"] == 1.0


def test_every_kind_of_question_is_known_by_its_words():
    kinds = {kind_of(ask(THINGS, "low", np.random.default_rng(seed))[0].text) for seed in range(60)}
    assert kinds == set(KINDS)


def test_the_right_option_is_among_the_options():
    for seed in range(40):
        question, asked = ask(THINGS, "falling", np.random.default_rng(seed))
        assert question.answer_text in {"left", "still", "sad", "top", "center", "small", "large"}
        assert THINGS[asked].phrase == question.phrase
