"""The vision-language stand-in: what it is taught, and what is stored."""

import json

import numpy as np
import pytest
import torch

from qwenlab.core.scene_images import compose
from qwenlab.core.scenes import held_out, repairs
from qwenlab.latentcot.observations import observation, parse_observation
from qwenlab.standins.vl import embedded
from qwenlab.standins.vl_data import TASKS, Batches, Scenes


@pytest.fixture(scope="module")
def stored(root):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = root / "data/standins/vl"
    return (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoProcessor.from_pretrained(folder),
    )


def test_targets_of_training_and_of_the_test_never_meet():
    assert not any(held_out(Scenes(seed).target()) for seed in range(40))
    assert all(held_out(Scenes(seed, held=True).target()) for seed in range(40))


@pytest.mark.parametrize("task", TASKS)
def test_every_skill_has_an_answer_that_follows_from_what_is_shown(task):
    scenes = Scenes(5)
    for _ in range(20):
        chat = scenes.chat(task)
        assert chat.answer
        if task == "fix_images":
            drawn, target = chat.images
            assert chat.answer == observation(drawn, target)
            assert bool(repairs(target, drawn)) == (parse_observation(chat.answer).repair is not None)


def test_a_cells_feature_does_not_depend_on_the_cells_around_it(stored):
    """The bank of features rests on this: a window of the tower is a cell."""
    model, processor = stored
    scenes = np.array([[1, 5, 0, 12], [1, 0, 7, 3]])
    images = compose(scenes, np.zeros_like(scenes), 32)
    inputs = processor.image_processor(list(images), return_tensors="pt")
    with torch.no_grad():
        one, other = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
    assert torch.allclose(one[0], other[0], atol=1e-5) and not torch.allclose(one[1], other[1], atol=1e-2)


def test_labels_stand_on_answers_only(stored):
    _, processor = stored
    make = Batches(processor.tokenizer, lambda kinds, images: torch.zeros(3, 1, kinds.shape[1], dtype=torch.long))
    chats = [Scenes(1).chat(task) for task in TASKS]
    batch = make(chats)
    for row, chat in enumerate(chats):
        labels = batch["labels"][row]
        assert processor.tokenizer.decode(labels[labels != -100]) == f"{chat.answer}<|im_end|>"


def test_every_word_of_a_scene_is_one_token(stored):
    _, processor = stored
    for word in ["red", "blue", "circle", "triangle", "shape", "same", "opposite", "right", "wrong"]:
        assert len(processor.tokenizer(f" {word}")["input_ids"]) == 1


def test_the_stored_weights_are_half_precision_and_small(root):
    from safetensors import safe_open

    file = root / "data/standins/vl/model.safetensors"
    assert file.stat().st_size < 8e6
    with safe_open(file, "pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.float16}  # noqa: SIM118


def test_the_readme_of_the_stand_in_says_what_was_measured(root):
    found = json.loads((root / "metrics/standins/vl.json").read_text())
    text = (root / "data/standins/vl/README.md").read_text()
    assert all(f"| {value:.3f} |" in text for value in found.values())


def test_image_features_take_the_places_of_image_tokens(stored):
    model, processor = stored
    ids = processor.tokenizer("a<|image_pad|><|image_pad|>b", return_tensors="pt")["input_ids"]
    features = torch.arange(2.0)[:, None].expand(-1, model.config.text_config.hidden_size) + 7
    out = embedded(model, ids, features)
    where = (ids == model.config.image_token_id)[0]
    assert torch.equal(out[0, where], features)
