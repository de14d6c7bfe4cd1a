"""The scene stand-in: its training code sees what the stock pipelines see, and what the stored one can do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qwenlab.core.image_conditioning import template_length
from qwenlab.core.params import load
from qwenlab.core.scene_checker import read_scenes
from qwenlab.core.scene_images import compose, render
from qwenlab.core.scene_prompts import held_out_prompts
from qwenlab.core.scenes import WORLD, held_out, read_repairs
from qwenlab.latentcot.drawing import Images, QwenImagePainter
from qwenlab.standins import scenes_image, scenes_image_dit, scenes_image_text


@pytest.fixture(scope="module")
def small(root: Path) -> scenes_image.Recipe:
    changes = {
        "vae_steps": 2, "polish_steps": 2, "vae_batch": 2, "text_steps": 2, "text_batch": 4, "steps": 2, "batch": 4,
        "layers": 1, "text_layers": 1, "text_dim": 32,
    }  # fmt: skip
    return load("standins.scenes_image", scenes_image.Recipe, root).model_copy(update=changes)


@pytest.fixture(scope="module")
def pipes(small):
    torch.manual_seed(0)
    return scenes_image.build_pipelines(small)


def test_the_template_is_not_34_or_64_tokens_long_here_and_is_measured(pipes):
    draw, edit = pipes
    assert (draw.prompt_template_encode_start_idx, edit.prompt_template_encode_start_idx) != (34, 64)
    assert draw.prompt_template_encode_start_idx == template_length(draw)


def test_training_embeds_prompts_as_the_drawing_pipeline_does(pipes):
    texts = ["a red circle at the top left", "three blue squares, none at the bottom right"]
    ours, mask = scenes_image_text.embed(pipes[0], texts)
    theirs, their_mask = pipes[0].encode_prompt(texts)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert (mask == their_mask.bool()).all()


def test_training_embeds_an_instruction_and_its_picture_as_the_editing_pipeline_does(pipes):
    picture = render((1, 2, 3, 4), 32)
    ours, _ = scenes_image_text.embed(pipes[1], ["remove the top left shape"], picture[None])
    theirs, _ = pipes[1].encode_prompt("remove the top left shape", [Image.fromarray(picture)], "cpu")
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_pixel_values_equal_the_image_processors(pipes):
    pictures = compose(np.array([[1, 2, 3, 4], [0, 5, 12, 7]]), np.zeros((2, 4), int), 32)
    theirs = pipes[1].processor.image_processor([Image.fromarray(p) for p in pictures], return_tensors="pt")
    assert torch.allclose(scenes_image_text.pixel_values(pictures), theirs["pixel_values"], atol=1e-5)


def test_training_never_shows_a_held_out_scene():
    rng = np.random.default_rng(0)
    _, prompts = scenes_image_text.training_prompts(300, rng)
    _, _, edits, _ = scenes_image_text.training_edits(300, rng)
    assert not any(held_out(scene) for scene in [*prompts, *edits])
    assert all(held_out(scene) for scene in scenes_image_text.training_prompts(20, rng, unseen=True)[1])


def test_an_instruction_repairs_its_one_wrong_cell():
    texts, drawn, target, cell = scenes_image_text.training_edits(200, np.random.default_rng(1))
    assert ((drawn != target).sum(1) == 1).all()
    for text, right, where in zip(texts, target, cell, strict=True):
        repair = (read_repairs(text) or [None])[0]
        assert repair is not None
        assert (repair.cell, repair.item) == (where, right[where])


def test_drafts_in_training_keep_their_right_cells_readable():
    rng = np.random.default_rng(2)
    _, drawn, _, cell = scenes_image_text.training_edits(100, rng)
    pictures = scenes_image_dit.draft_pictures(drawn, np.zeros_like(drawn), cell, 32, rng)
    others = np.arange(WORLD.cells) != cell[:, None]
    assert (read_scenes(pictures) == drawn)[others].mean() > 0.98


def test_a_tiny_recipe_trains_saves_and_loads_as_both_pipelines(small, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes_image, "measure", lambda *a, **k: {
        "draft_all_correct": 0.0, "draft_cells": 0.0, "edit_all_correct": 0.0})  # fmt: skip
    quality = scenes_image.train(small, tmp_path / "scenes")
    assert {"velocity_mse", "vae_psnr", "prompt_understood", "instruction_understood"} <= set(quality)
    settings = Images(
        draw_model=str(tmp_path / "scenes"), edit_model=str(tmp_path / "scenes"), device="cpu", dtype="fp32",
        offload="none", width=32, height=32, steps=2, cfg=2.0, negative_prompt=" ", batch=2,
    )  # fmt: skip
    painter = QwenImagePainter(settings)
    drawn = painter.draw(["a red circle at the top left"] * 3, [0, 1, 0])
    assert [image.size for image in drawn] == [(32, 32)] * 3
    assert (np.asarray(drawn[0]) == np.asarray(drawn[2])).all()
    assert (np.asarray(drawn[0]) != np.asarray(drawn[1])).any()
    assert painter.edit(drawn[0], "remove the top left shape", 0).size == (32, 32)
    assert painter._pipe("draw").transformer is painter._pipe("edit").transformer


def stored(root: Path) -> Path:
    return root / "data" / "standins" / "scenes_image"


def test_the_stored_files_are_small_and_say_what_they_stand_for(root: Path):
    sizes = [path.stat().st_size for path in stored(root).rglob("*") if path.is_file()]
    assert max(sizes) <= 8 * 2**20
    assert sum(sizes) <= 10 * 2**20
    assert "stands for" in (stored(root) / "README.md").read_text()


def test_every_class_is_the_published_pipelines(root: Path):
    index = json.loads((stored(root) / "model_index.json").read_text())
    assert index["_class_name"] == "QwenImageEditPlusPipeline"
    assert index["vae"][1] == "AutoencoderKLQwenImage"
    assert index["transformer"][1] == "QwenImageTransformer2DModel"
    assert index["text_encoder"][1] == "Qwen2_5_VLForConditionalGeneration"


@pytest.fixture(scope="module")
def painter(root: Path):
    settings = load("latentcot.images", Images, root)
    folder = str(stored(root))
    return QwenImagePainter(settings.model_copy(update={"draw_model": folder, "edit_model": folder}))


def test_the_stored_one_draws_held_out_prompts_far_above_chance_and_below_perfect(painter):
    prompts = held_out_prompts(96, 123)
    drawn = painter.draw([prompt.text for prompt in prompts], list(range(96)))
    right = read_scenes(np.stack([np.asarray(i) for i in drawn])) == [prompt.target for prompt in prompts]
    assert 0.3 < right.all(1).mean() < 0.97  # chance is 13^-4
    assert right.mean() > 0.75


def test_the_stored_one_edits_what_it_is_told_and_keeps_the_rest(painter):
    texts, drawn, target, _ = scenes_image_text.training_edits(24, np.random.default_rng(9), unseen=True)
    edited = [painter.edit(Image.fromarray(render(tuple(d), 32)), t, 5) for t, d in zip(texts, drawn, strict=True)]
    right = (read_scenes(np.stack([np.asarray(i) for i in edited])) == target).all(1)
    assert right.mean() >= 0.7
