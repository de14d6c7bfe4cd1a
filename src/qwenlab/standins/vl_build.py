"""The vision-language stand-in's sizes, its processor and its untrained model."""

from qwenlab.core.params import Params
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins.vl_data import texts

CELL = 16  # pixels of a cell, and of the vision window: two by two patches of 8, merged to one token


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vision_hidden: int
    vocab: int
    caption_steps: int
    caption_batch: int
    caption_lr: float
    steps: int
    batch: int
    lr: float
    last_steps: int
    last_lr: float
    last_right: float
    first_token: float


def build_processor(recipe: Recipe):
    """The published processor's classes with a small tokenizer and a patch of 8 pixels."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = train_tokenizer(texts(recipe.seed), recipe.vocab)
    size = {"shortest_edge": CELL * CELL, "longest_edge": 64 * CELL * CELL}
    sizes = {"patch_size": CELL // 2, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def build_model(recipe: Recipe, tokenizer):
    """An untrained tiny model."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    part = recipe.hidden // recipe.heads // 2  # half of a head's dimensions, shared by time, height and width
    ids = {
        f"{ours}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for ours, name in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": recipe.hidden,
            "intermediate_size": recipe.mlp,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.kv_heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [part - 2 * (part // 3), part // 3, part // 3],
            },
            "initializer_range": 0.06,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 1,
            "hidden_size": recipe.vision_hidden,
            "intermediate_size": 2 * recipe.vision_hidden,
            "num_heads": 4,
            "patch_size": CELL // 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": CELL,  # a window is a cell: its feature does not depend on the cells around it
            "fullatt_block_indexes": [],
            "out_hidden_size": recipe.hidden,
            "initializer_range": 0.06,
        },
        tie_word_embeddings=True,
        **ids,
    )
    return Qwen2_5_VLForConditionalGeneration(config)
