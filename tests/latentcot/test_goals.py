"""A goal in words names one scene."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.scenes import describe
from qwenlab.latentcot.goals import chained, resolve

SCENES = st.lists(st.integers(0, 12), min_size=4, max_size=4)
NAMED = st.lists(st.booleans(), min_size=8, max_size=8)


@given(SCENES, NAMED)
def test_a_chained_goal_is_resolved_to_its_scene(scene, named):
    text, depths = chained(scene, np.array(named).reshape(4, 2))
    assert resolve(text) == tuple(scene)
    assert len(text.replace(",", "").split()) == 8 and max(depths) <= 3


@given(SCENES)
def test_a_direct_goal_is_a_chained_one_without_references(scene):
    text, depths = chained(scene, np.ones((4, 2), bool))
    assert text == describe(tuple(scene)) and resolve(text) == tuple(scene) and depths == [0, 0, 0, 0]


@given(st.text())
def test_other_words_name_no_scene(text):
    found = resolve(text)
    assert found is None or len(found) == 4


def test_a_reference_without_a_cell_before_it_names_nothing():
    assert resolve("same circle, no shape, no shape, no shape") is None
