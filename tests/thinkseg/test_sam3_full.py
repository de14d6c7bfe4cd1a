"""The published SAM3 on the meta device: real dimensions, no weights."""

import pytest
import torch


@pytest.fixture(scope="module")
def model():
    from transformers import Sam3VideoConfig, Sam3VideoModel

    with torch.device("meta"):
        return Sam3VideoModel(Sam3VideoConfig()).eval()


def test_it_has_860_million_parameters_not_the_4_billion_of_the_specification(model):
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 855e6 < count < 865e6
    assert sum(parameter.numel() for parameter in model.detector_model.parameters()) > 0.97 * count


def test_pictures_of_1008_pixels_become_masks_of_288(model):
    detector = model.detector_model
    with torch.no_grad():
        vision = detector.get_vision_features(torch.zeros(1, 3, 1008, 1008, device="meta"))
        assert [tuple(level.shape) for level in vision.fpn_hidden_states[:3]] == [
            (1, 256, 288, 288),
            (1, 256, 144, 144),
            (1, 256, 72, 72),
        ]
        text = torch.zeros(1, 32, 256, device="meta")
        encoded = detector.detr_encoder(
            vision_features=[vision.fpn_hidden_states[2]],
            text_features=text,
            vision_pos_embeds=[vision.fpn_position_encoding[2]],
        )
        decoded = detector.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=text,
            vision_pos_encoding=encoded.pos_embeds_flattened,
        )
        assert decoded.intermediate_hidden_states.shape == (6, 1, 200, 256)
        masks = detector.mask_decoder(
            decoder_queries=decoded.intermediate_hidden_states[-1],
            backbone_features=list(vision.fpn_hidden_states[:3]),
            encoder_hidden_states=encoded.last_hidden_state,
            prompt_features=text,
        )
    assert masks.pred_masks.shape == (1, 200, 288, 288)


def test_the_tracker_reads_the_memory_that_our_session_keeps(model):
    from qwenlab.thinkseg.sam3 import MAX_TOKENS, MEMORY

    config = model.config.tracker_config
    assert max(config.num_maskmem, config.max_object_pointers_in_encoder) <= MEMORY
    assert model.config.detector_config.text_config.max_position_embeddings == MAX_TOKENS
    assert model.hotstart_delay == 15
