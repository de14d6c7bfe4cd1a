"""What the auxiliary image shows, and settings that cannot go together."""

import numpy as np
import pytest

from qwenlab.core.errors import UserError
from qwenlab.core.params import load
from qwenlab.core.scene_images import compose
from qwenlab.core.scenes import random_scenes
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.scene_data import GREY, SIZE, only_repair

HALF = SIZE // 2


@pytest.fixture(scope="module")
def pictures():
    scenes = random_scenes(5, np.random.default_rng(0))
    return compose(scenes, np.zeros_like(scenes), SIZE)


@pytest.mark.parametrize(("cell", "rows", "columns"), [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)])
def test_only_the_first_wrong_cell_is_shown(pictures, cell, rows, columns):
    shown = only_repair(pictures, [[cell, 3]] * 5)
    window = (slice(None), slice(rows * HALF, rows * HALF + HALF), slice(columns * HALF, columns * HALF + HALF))
    assert np.array_equal(shown[window], pictures[window])
    shown[window] = GREY
    assert (shown == GREY).all()


def test_of_a_drawing_that_is_right_nothing_is_shown(pictures):
    assert (only_repair(pictures, [[]] * 5) == GREY).all()


def test_a_repair_to_nothing_is_not_grey(pictures):
    """Else "draw nothing" would look like "all right"."""
    assert abs(int(compose(np.zeros((1, 4), int), np.zeros((1, 4), int), SIZE).mean()) - GREY) > 50


def test_an_alignment_through_latents_alone_needs_detached_inputs(tmp_path):
    keys = "latents: 2, alignment_layer: all_layers, first_layer: 1, latent_norm: none, hide_auxiliary: true"
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/own.yaml").write_text("{}")
    for detach, only, wrong in ((True, True, False), (False, False, False), (False, True, True)):
        both = f"detach: {detach}, only_through_latents: {only}".lower()
        (tmp_path / "params.yaml").write_text(f"profile: own\nmethod: {{{keys}, {both}}}\n")
        if wrong:
            with pytest.raises(UserError, match="only_through_latents needs detach: true"):
                load("method", Method, tmp_path)
        else:
            assert load("method", Method, tmp_path).detach is detach
