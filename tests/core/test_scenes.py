"""Scenes: text, targets, defects and repairs are exact inverses of each other; pictures and the checker agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.scene_checker import UNCLEAR, agreement, read_scene, read_scenes, verify
from qwenlab.core.scene_images import VARIANTS, cell_size, compose, masks, random_variants, render, shape_mask
from qwenlab.core.scene_prompts import KINDS, held_out_prompts, random_prompt, read_prompt
from qwenlab.core.scenes import (
    DEFECTS,
    EMPTY,
    NOTHING,
    WORLD,
    Repair,
    World,
    apply,
    check_scene,
    defect,
    defect_kind,
    describe,
    held_out,
    possible_defects,
    random_scene,
    random_scenes,
    read_description,
    read_repairs,
    repair_text,
    repairs,
)

LARGE = World(colours=("red", "green", "blue", "yellow", "purple", "orange"), rows=3, columns=4)
scenes = st.tuples(*[st.integers(0, WORLD.items - 1)] * WORLD.cells)


@given(scenes)
def test_a_description_names_exactly_its_scene(scene):
    assert read_description(describe(scene)) == scene
    assert all(len(part.split()) == 2 for part in describe(scene).split(", "))


@pytest.mark.parametrize("text", ["", "red circle", "red circle, no shape, no shape, pink circle", "a, b, c, d"])
def test_a_text_that_names_no_scene_is_none(text):
    assert read_description(text) is None


@given(scenes, st.integers(0, 3), st.integers(0, WORLD.items - 1))
def test_a_repair_survives_being_written_and_read(scene, cell, item):
    repair = Repair(cell, item, scene[cell])
    read = read_repairs(repair_text(repair))
    assert read is not None
    assert apply(scene, read[0]) == apply(scene, repair)


@given(st.text(max_size=60))
def test_reading_repairs_never_raises(text):
    read_repairs(text)


def test_nothing_to_change_is_no_repair_and_contradictions_are_refused():
    assert read_repairs(NOTHING) == []
    assert read_repairs("remove the top left shape; change the top left shape to a red circle") is None
    assert read_repairs("make it nicer") is None


@given(scenes, st.sampled_from(DEFECTS), st.integers(0, 1000))
def test_a_defect_is_of_its_kind_and_its_repair_undoes_it(scene, kind, seed):
    made = defect(scene, kind, np.random.default_rng(seed))
    if made is None:
        assert kind not in {k for k, _ in possible_defects(scene)}
        return
    drawn, repair = made
    assert defect_kind(scene[repair.cell], drawn[repair.cell]) == kind
    assert apply(drawn, repair) == scene
    assert repairs(scene, drawn) == [repair]


def test_an_unknown_defect_is_an_error():
    with pytest.raises(ValueError, match="no defect 'size'"):
        defect((0, 0, 0, 0), "size", np.random.default_rng(0))


def test_one_scene_of_five_is_held_out_on_every_machine():
    drawn = random_scenes(2000, np.random.default_rng(0))
    assert 0.16 < np.mean([held_out(scene) for scene in drawn]) < 0.24
    assert [held_out((i, 1, 2, 3)) for i in range(6)] == [held_out(np.array([i, 1, 2, 3])) for i in range(6)]
    assert held_out((0, 0, 0, 0)) is False


def test_places_have_words_in_two_by_two_and_numbers_beyond():
    assert WORLD.places() == ("top left", "top right", "bottom left", "bottom right")
    assert LARGE.place(5) == "row 2 column 2"


@pytest.mark.parametrize("scene", [(1, 2, 3), (0, 0, 0, 13), (-1, 0, 0, 0)])
def test_a_scene_of_the_wrong_size_or_items_is_refused(scene):
    with pytest.raises(UserError, match="expected 4 items from 0 to 12"):
        check_scene(scene)


@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_is_read_back_with_its_target(kind):
    rng = np.random.default_rng(1)
    for _ in range(200):
        prompt = random_prompt(kind, rng)
        read = read_prompt(f" {prompt.text.upper()}.")
        assert read is not None
        assert read.target == prompt.target
        assert read.kind == kind or {read.kind, kind} == {"two", "colours"}


@given(st.text(max_size=80))
def test_reading_a_prompt_never_raises(text):
    read_prompt(text)


@pytest.mark.parametrize(
    "text",
    [
        "a red car on a beach", "a red circle at the top left and a blue circle at the top left",
        "three red circles", "a red circle left of a blue square, at the left", "nine red circles",
    ],
)  # fmt: skip
def test_a_prompt_that_determines_no_scene_is_none(text):
    assert read_prompt(text) is None


def test_held_out_prompts_have_held_out_targets_and_every_kind():
    prompts = held_out_prompts(30, 0)
    assert all(held_out(prompt.target) for prompt in prompts)
    assert {prompt.kind for prompt in prompts} == set(KINDS)
    assert prompts == held_out_prompts(30, 0)


def test_pictures_composed_by_index_equal_pictures_rendered_one_by_one():
    rng = np.random.default_rng(0)
    many = random_scenes(20, rng)
    variants = random_variants(many, rng)
    images = compose(many, variants, 32)
    assert images.shape == (20, 32, 32, 3)
    assert images.dtype == np.uint8
    for scene, chosen, image in zip(many, variants, images, strict=True):
        assert (render(tuple(scene), 32, WORLD, tuple(chosen)) == image).all()


def test_masks_cover_the_shapes_and_nothing_else():
    scene = (1, EMPTY, 9, 11)
    found = masks(scene, 64)
    assert set(found) == {0, 2, 3}
    outside = ~np.any(list(found.values()), axis=0)
    from scipy.ndimage import binary_erosion

    assert (render(scene, 64)[binary_erosion(outside, iterations=2)] == 235).all()


def test_larger_grids_render_and_read_back():
    scene = random_scene(np.random.default_rng(3), LARGE)
    image = render(scene, 96, LARGE)
    assert image.shape == (96, 128, 3)
    assert read_scene(image, LARGE) == scene


@pytest.mark.parametrize("size", [15, 33, 8])
def test_a_size_that_cells_do_not_fit_is_refused(size):
    with pytest.raises(ValueError, match="expected a multiple of 2"):
        cell_size(size)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="no shape 'star'"):
        shape_mask("star", 16)


@settings(max_examples=50)
@given(scenes, st.integers(0, 10_000))
def test_the_checker_reads_every_clean_render(scene, seed):
    variants = np.random.default_rng(seed).integers(len(VARIANTS), size=4)
    assert verify(render(scene, 32, WORLD, tuple(variants)), scene).all_correct


def test_the_checker_scores_cells():
    target = (1, 0, 5, 9)
    check = verify(render((1, 0, 5, 8), 32), target)
    assert (check.score, check.all_correct) == (0.75, False)


def test_the_checker_holds_on_imperfect_pictures():
    found = agreement(300, 7)
    assert min(found[name] for name in ("none", "noise_10", "blur_1", "tint_10", "shift_1")) >= 0.99
    assert found["noise_20"] >= 0.93
    assert found["blur_1_noise_10_tint_10"] >= 0.97


def test_garbage_and_black_pictures_are_unclear_and_never_right():
    rng = np.random.default_rng(0)
    garbage = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    assert (read_scenes(garbage) == UNCLEAR).all()
    assert (read_scenes(np.zeros((1, 32, 32, 3), np.uint8)) == UNCLEAR).all()


def test_a_mixture_of_two_shapes_is_not_both():
    a, b = render((1, 0, 0, 0), 32).astype(float), render((9, 0, 0, 0), 32).astype(float)
    half = ((a + b) / 2).round().astype(np.uint8)
    assert read_scene(half)[0] not in (1, 9) or not verify(half, (1, 0, 0, 0)).all_correct


def test_what_is_no_batch_of_pictures_is_refused():
    with pytest.raises(ValueError, match="expected \\[N, H, W, 3\\] uint8"):
        read_scenes(np.zeros((32, 32, 3), np.uint8))
