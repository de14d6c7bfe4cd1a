"""The loop keeps what it cannot improve, repairs what it understands, and its numbers mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwenlab.core.scene_images import render
from qwenlab.core.scene_prompts import Prompt, held_out_prompts
from qwenlab.core.scenes import EMPTY, WORLD, describe, repairs
from qwenlab.latentcot.drawing import ProceduralPainter
from qwenlab.latentcot.loop import (
    HeuristicReflector,
    look_again,
    nothing_wrong,
    plan,
    redraw_prompt,
    refine_all,
    repair_is_right,
)
from qwenlab.latentcot.loop_metrics import Drafts, interval, judge, make_drafts, summarise
from qwenlab.latentcot.observations import ALL_RIGHT, observation, parse_observation, refine_prompt

scenes = st.tuples(*[st.integers(0, WORLD.items - 1)] * WORLD.cells)
RED, GREEN = WORLD.item("red", "circle"), WORLD.item("green", "square")


@given(scenes, scenes)
def test_an_observation_is_read_back_as_the_first_repair(drawn, target):
    seen = parse_observation(observation(drawn, target))
    assert seen is not None
    wanted = repairs(target, drawn)
    if not wanted:
        assert seen.right
        assert refine_prompt(seen) is None
    else:
        assert seen.repair is not None
        assert (seen.repair.cell, seen.repair.item) == (wanted[0].cell, wanted[0].item)


@given(st.text(max_size=80))
def test_reading_an_observation_never_raises(text):
    parse_observation(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "the picture is nice", "top left wrong colour", "top left missing : draw nothing",
        "top left extra : draw red circle", "middle missing : draw red circle", "top left wrong colour : draw red car",
    ],
)  # fmt: skip
def test_an_empty_or_unreadable_observation_keeps_the_draft(text):
    assert plan(text) == (None, "unreadable")
    draft = Image.fromarray(render((RED, 0, 0, 0), 64))
    done = refine_all(ProceduralPainter(), [draft], ["red circle, no shape, no shape, no shape"], [text], [0], "edit")
    assert done[0].image is draft
    assert not nothing_wrong(text)


def test_all_right_keeps_the_draft_too_and_says_why():
    assert plan(ALL_RIGHT) == (None, "all right")
    assert nothing_wrong(ALL_RIGHT)


def test_the_heuristic_reflector_names_the_repair_and_says_nothing_to_a_goal_it_cannot_read():
    draft = Image.fromarray(render((RED, 0, 0, 0), 64))
    said = HeuristicReflector().reflect([draft, draft], [describe((GREEN, 0, 0, 0)), "a cat"])
    assert said == ["top left wrong shape : draw green square", ""]


def test_a_repair_is_right_only_for_a_wrong_cell_and_its_own_item():
    drawn, target = (RED, EMPTY, 0, 0), (GREEN, EMPTY, 0, 0)
    assert repair_is_right("top left wrong shape : draw green square", drawn, target)
    assert not repair_is_right("top left wrong shape : draw red square", drawn, target)
    assert not repair_is_right("top right missing : draw green square", drawn, target)
    assert not repair_is_right(ALL_RIGHT, drawn, target)


@pytest.mark.parametrize("how", ["edit", "redraw"])
def test_one_turn_with_the_procedural_painter_mends_a_wrong_draft(how):
    prompt = "red circle, green square, no shape, no shape"
    draft = Image.fromarray(render((GREEN, GREEN, 0, 0), 64))
    text = HeuristicReflector().reflect([draft], [prompt])[0]
    # Seed 1 with the seed of a refinement added draws a right picture; half of the others would not.
    done = refine_all(ProceduralPainter(), [draft], [prompt], [text], [1], how)[0]
    assert done.instruction == "change the top left shape to a red circle"
    if how == "edit":
        assert HeuristicReflector().reflect([done.image], [prompt]) == [ALL_RIGHT]
    else:
        assert done.image.size == draft.size


def test_a_redraw_says_what_to_mind():
    assert redraw_prompt("a red circle at the top left.", "remove the top right shape") == (
        "a red circle at the top left; remove the top right shape"
    )


class Painter:
    """Drafts that are given; an edit really edits (by the procedural painter)."""

    name = "given"

    def __init__(self, pictures):
        self.pictures, self.edits = list(pictures), 0

    def draw(self, prompts, seeds):
        return [self.pictures.pop(0) for _ in prompts]

    def edit(self, image, instruction, seed):
        self.edits += 1
        return ProceduralPainter(32).edit(image, instruction, seed)

    def release(self):
        pass


def picture(scene):
    return Image.fromarray(render(scene, 32))


def test_every_way_is_scored_from_the_same_two_drafts():
    target = (RED, GREEN, 0, 0)
    prompts = [Prompt(describe(target), "full", target)] * 3
    a = [picture(target), picture((GREEN, GREEN, 0, 0)), picture((GREEN, 0, 0, 0))]
    b = [picture((0, 0, 0, 0)), picture(target), picture((0, 0, 0, 0))]
    painter = Painter([*a, *b])
    drafts = make_drafts(painter, prompts, 0)
    rows = judge(painter, HeuristicReflector(), prompts, drafts, 0, reprompt=False).rows
    assert [row["draft"] for row in rows] == [1, 0, 0]
    assert [row["redraw"] for row in rows] == [0, 1, 0]
    assert [row["best_of_2"] for row in rows] == [1, 1, 0]
    assert [row["refined"] for row in rows] == [1, 1, 0]  # one repair a turn: the third had two wrong cells
    assert [row["edited_score"] for row in rows] == [1.0, 1.0, 0.75]
    assert [row["refined_score"] for row in rows] == [1.0, 1.0, 0.5]  # still wrong: the draft stays
    assert painter.edits == 2
    found = summarise(rows, 200)
    assert found["harm"] == 0
    assert found["detection"] == {"wrong_found": 1.0, "right_accepted": 1.0, "readable": 1.0}
    assert found["repair"]["right_of_found"] == 1.0
    assert found["one_wrong_cell"]["mended"] == 1.0
    assert found["refined_minus_draft"]["value"] == pytest.approx(1 / 3)
    assert "reprompted" not in found["all_correct"]


def test_a_second_look_throws_away_what_the_reflector_does_not_accept():
    target = (RED, GREEN, 0, 0)
    goal, draft = describe(target), picture((RED, RED, 0, 0))
    for text, kept in (
        ("top right wrong shape : draw green square", None),
        ("top left extra : draw nothing", "second look"),
    ):
        done = refine_all(Painter([]), [draft], [goal], [text], [0], "edit")
        again = look_again(HeuristicReflector(), [draft], [goal], done)[0]
        assert again.kept == kept
        assert (again.image is draft) == (kept is not None)
        assert again.tried is done[0].tried


class Meddler:
    """Finds fault with everything: always wants the top left to be a green square."""

    def reflect(self, images, goals):
        return ["top left wrong shape : draw green square"] * len(images)


def test_a_reflector_that_meddles_with_right_drafts_is_counted_as_harm():
    target = (RED, GREEN, 0, 0)
    prompts = [Prompt(describe(target), "full", target)] * 2
    drafts = Drafts([picture(target)] * 2, [picture(target)] * 2, np.array([target] * 2), np.array([target] * 2))
    found = summarise(judge(Painter([]), Meddler(), prompts, drafts, 0, reprompt=False).rows, 200)
    assert found["harm_edited"] == 1.0
    assert found["harm"] == 0.0  # the second look refuses its own work, and the draft stays
    assert found["detection"]["right_accepted"] == 0.0
    assert "wrong_found" not in found["detection"]  # there was no wrong draft: no number, rather than a made-up one


def test_seeds_of_one_prompt_stay_together_in_the_bootstrap():
    rows = [{"item": i, "new": int(i < 30), "old": 0} for i in range(100)]
    once, thrice = interval(rows, "new", "old", 2000), interval(rows * 3, "new", "old", 2000)
    assert once["value"] == thrice["value"] == pytest.approx(0.3)
    assert (once["low"], once["high"]) == (thrice["low"], thrice["high"])
    assert 0.2 < once["low"] < 0.3 < once["high"] < 0.4
    assert (thrice["won"], thrice["lost"]) == (90, 0)


def test_prompts_of_the_loop_come_from_held_out_scenes_only():
    from qwenlab.core.scenes import held_out

    assert all(held_out(prompt.target) for prompt in held_out_prompts(60, 5))
