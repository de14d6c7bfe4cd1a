"""The SAM3 stand-in's recipe: scenes, prompts, first weights, losses; and the stored one is what it says."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from qwenlab.core.io import read_json
from qwenlab.standins.sam3_build import Recipe, build_model, build_processor, deepen, sines, whitened
from qwenlab.standins.sam3_data import absent, batch, boxes_of, patch_targets, prompts
from qwenlab.standins.sam3_eval import held_out
from qwenlab.standins.sam3_losses import mask_loss, match, query_loss
from qwenlab.standins.sam3_training import Trainer
from qwenlab.thinkseg.vocabulary import PHRASES

RECIPE = Recipe(
    seed=0, hidden=32, patch=8, vision_layers=2, queries=6, sight_steps=1, sight_lr=1e-3, box_steps=1, mask_steps=1,
    polish_steps=1, polish_lr=1e-3, deep_steps=1,
    lr=1e-3, batch=2, prompts=4, present=0.6, photos=[], test_photos=[], test_scenes=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return build_model(RECIPE, processor.tokenizer, {})


def test_scenes_are_functions_of_the_seed_and_things_stay_visible():
    one, again = (batch(np.random.default_rng(3), {}, 20) for _ in range(2))
    assert torch.equal(one.pixels, again.pixels)
    assert one.pixels.min() >= -1 and one.pixels.max() <= 1
    for masks, boxes, looks in zip(one.masks, one.boxes, one.looks, strict=True):
        assert 1 <= len(masks) <= 5 and len(masks) == len(boxes) == len(looks)
        assert (masks.sum((1, 2)) > 15).all() and (masks.sum(0) <= 1).all()


def test_boxes_go_round_the_true_pixels():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 8:16, 16:48] = True
    assert boxes_of(mask)[0].tolist() == [0.5, 12 / 64, 0.5, 8 / 64]


def test_absent_phrases_fit_nothing_and_are_mostly_near_misses():
    rng, there = np.random.default_rng(0), [0, 4]  # red circle, green square
    drawn = [absent(rng, there) for _ in range(300)]
    assert not set(drawn) & set(there)
    assert np.mean([look // 3 in (0, 1) or look % 3 in (0, 1) for look in drawn]) > 0.8
    chosen = prompts(rng, torch.tensor(there), 400, 0.61)
    assert 0.5 < np.mean([look in there for look in chosen]) < 0.72


def test_a_patch_belongs_to_the_shape_that_covers_it():
    scenes = batch(np.random.default_rng(1), {}, 4)
    index, boxes = patch_targets(scenes)
    for row, masks in enumerate(scenes.masks):
        cover = masks.reshape(-1, 8, 8, 8, 8).mean((2, 4)).flatten(1)
        for patch in range(64):
            assert (index[row, patch] >= 0) == (cover[:, patch].max() >= 0.25)
    assert boxes.shape == (4, 64, 4)


def test_whitened_patches_have_unit_variance_and_no_correlation():
    pixels = batch(np.random.default_rng(0), {}, 100).pixels
    out = torch.nn.functional.conv2d(pixels, whitened(pixels, 8, 32), stride=8).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.cov(out.T).sub(torch.eye(32)).abs().max() < 0.02


def test_positions_tell_all_patches_apart():
    table = sines(8, 32)[0]
    assert torch.cdist(table, table).add(torch.eye(64) * 9).min() > 0.1


def test_the_tokenizer_has_our_words_and_takes_any_other(processor):
    assert all(len(processor.tokenizer(text)["input_ids"]) == 4 for text in PHRASES)
    odd = processor.tokenizer("Ünknown 物体!")
    assert processor.tokenizer.unk_token_id not in odd["input_ids"][1:-1]


def test_matching_takes_the_nearest_queries_and_a_perfect_answer_costs_nothing():
    targets = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3]])
    boxes = torch.tensor([[0.5, 0.5, 0.9, 0.9], [0.7, 0.7, 0.3, 0.3], [0.2, 0.2, 0.2, 0.2]])
    assert match(torch.zeros(2, 3), boxes.expand(2, 3, 4), [targets, targets[1:]]) == [([1, 2], [1, 0]), ([1], [0])]
    logits = torch.tensor([[-20.0, 20.0, 20.0], [-20.0, -20.0, -20.0]])
    both = boxes.expand(2, 3, 4)
    loss, pairs = query_loss(logits, both, torch.tensor([20.0, -20.0]), [targets, targets[:0]])
    assert loss.item() == pytest.approx(0, abs=1e-4) and pairs[1] == ([], [])
    truth = torch.zeros(1, 8, 8)
    truth[0, :4] = 1
    assert mask_loss((truth * 2 - 1) * 30, truth).item() == pytest.approx(0, abs=1e-3)


def test_every_stage_has_a_finite_loss_and_gradients_where_it_trains(model, processor):
    trainer = Trainer(RECIPE, model, processor, {})
    for loss in (trainer.sight_loss, trainer.detect_loss, lambda step: trainer.detect_loss(step, masks=True)):
        model.zero_grad()
        value = loss(0)
        value.backward()
        assert torch.isfinite(value)
        assert model.vision_encoder.backbone.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0
    assert model.mask_decoder.semantic_projection.weight.grad.abs().sum() > 0
    assert model.text_encoder.text_model.embeddings.token_embedding.weight.grad.abs().sum() > 0


def test_a_third_decoder_layer_begins_as_the_second_and_is_saved_with_the_model(model, processor, tmp_path):
    from transformers import Sam3Model

    deep = copy.deepcopy(model)
    deepen(deep)
    second, third = (layer.state_dict() for layer in deep.detr_decoder.layers[1:])
    assert all(torch.equal(value, third[name]) for name, value in second.items())
    assert model.config.detr_decoder_config.num_layers == 2
    deep.save_pretrained(tmp_path)
    again = Sam3Model.from_pretrained(tmp_path).eval()
    pixels, words = torch.zeros(1, 3, 64, 64), processor(text=["red circle"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(
            again(pixel_values=pixels, **words).pred_boxes, deep.eval()(pixel_values=pixels, **words).pred_boxes
        )


def test_short_and_padded_prompts_give_the_same(model, processor):
    """Training leaves out the padding that the processor adds."""
    pixels = batch(np.random.default_rng(5), {}, 1).pixels
    padded = processor(text=["red circle"], return_tensors="pt")
    short = processor.tokenizer(["red circle"], padding=True, return_tensors="pt")
    assert short["input_ids"].shape[1] < padded["input_ids"].shape[1]
    with torch.no_grad():
        one, other = (model.eval()(pixel_values=pixels, **words) for words in (padded, short))
    assert torch.allclose(one.pred_boxes, other.pred_boxes, atol=1e-5)
    assert torch.allclose(one.pred_masks, other.pred_masks, atol=1e-3)


def test_training_computes_what_the_librarys_forward_pass_computes(model, processor):
    """The loss calls the parts of the model one by one, to supervise both decoder layers."""
    scenes = batch(np.random.default_rng(0), {}, 1)
    words = processor(text=["red circle"], return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=scenes.pixels, **words)
        vision = model.get_vision_features(scenes.pixels)
        text, mask = model.get_text_features(**words).pooler_output, words["attention_mask"].bool()
        encoded = model.detr_encoder([vision.fpn_hidden_states[2]], text, [vision.fpn_position_encoding[2]], mask)
        decoded = model.detr_decoder(
            encoded.last_hidden_state, encoded.text_features, encoded.pos_embeds_flattened, mask, encoded.spatial_shapes
        )
        logits = model.dot_product_scoring(decoded.intermediate_hidden_states, encoded.text_features, mask)
    assert torch.allclose(logits[-1].squeeze(-1), output.pred_logits, atol=1e-5)


def test_scores_of_an_untrained_model_are_numbers_and_poor(model, processor):
    quality = held_out(model.eval(), processor, {}, 0, 10)
    assert all(0 <= value <= 1 for value in quality.values()) and quality["instance_iou"] < 0.5


def test_the_stored_stand_in_is_small_and_its_readme_says_what_was_measured(root: Path):
    folder = root / "data/standins/sam3"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    stored, words = read_json(root / "metrics/standins/sam3.json"), (folder / "README.md").read_text()
    assert stored["instance_iou"] >= 0.74 and stored["f1"] >= 0.9 and stored["presence_accuracy"] >= 0.96
    for name in ("instance_iou", "f1", "presence_accuracy", "wrong_shape_accuracy"):
        assert f"{stored[name]:.3f}" in words
