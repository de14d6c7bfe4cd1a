"""A `Sam3VideoModel` with random weights, as small as the library allows: the real video path for tests and benchmarks.

The tracker hard-codes 64 memory channels and needs a width of at least 128, so that this is no stand-in: it finds
nonsense, but it finds it by the code that the published checkpoint runs.
"""

from pathlib import Path

WIDTH, SIZE, PATCH = 128, 64, 8


def build(folder: str | Path) -> Path:
    """Write model and processor to a folder; `load_segmenter` takes it for a published checkpoint."""
    import torch
    from transformers import Sam3VideoConfig, Sam3VideoModel, Sam3VideoProcessor
    from transformers.models.sam2_video.video_processing_sam2_video import Sam2VideoVideoProcessor

    from qwenlab.standins.sam3_build import Recipe, build_config, build_processor

    torch.manual_seed(0)
    recipe = Recipe(
        seed=0, hidden=WIDTH, patch=PATCH, vision_layers=2, queries=6, sight_steps=0, sight_lr=0, box_steps=0,
        mask_steps=0, polish_steps=0, polish_lr=0, deep_steps=0,
        lr=0, batch=0, prompts=0, present=0, photos=[], test_photos=[], test_scenes=0,
    )  # fmt: skip
    images = build_processor()
    detector = build_config(recipe, images.tokenizer)
    grid = SIZE // PATCH
    config = Sam3VideoConfig(
        detector_config=detector.to_dict(),
        tracker_config={
            "model_type": "sam3_tracker_video",
            "vision_config": detector.vision_config.to_dict(),
            "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SIZE, "patch_size": PATCH},
            "mask_decoder_config": {
                "hidden_size": WIDTH, "mlp_dim": 128, "num_attention_heads": 4, "iou_head_hidden_dim": WIDTH,
            },
            "memory_attention_hidden_size": WIDTH,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 128,
            "memory_attention_rope_feat_sizes": [grid, grid],
            "memory_encoder_hidden_size": WIDTH,
            "mask_downsampler_embed_dim": WIDTH,
            "memory_fuser_embed_dim": WIDTH,
            "memory_fuser_intermediate_dim": 128,
            "image_size": SIZE,
        },
        low_res_mask_size=4 * grid,
        fill_hole_area=4,
        new_det_thresh=0.0,  # random scores are low; every detection may begin a track
    )  # fmt: skip
    model = Sam3VideoModel(config)
    video = Sam2VideoVideoProcessor(size={"height": SIZE, "width": SIZE})
    processor = Sam3VideoProcessor(images.image_processor, video, images.tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)
