"""The SAM3 stand-in before training: recipe, processor, configuration and first weights.

What makes it see is the first weight: patches are projected on their whitened principal components, so that shape,
which is little of a patch's variance, is as loud as brightness.
"""

import copy
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from qwenlab.core.params import Params
from qwenlab.standins.sam3_data import batch
from qwenlab.thinkseg.drawing import SIZE
from qwenlab.thinkseg.vocabulary import PHRASES


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    hidden: int
    patch: int
    vision_layers: int
    queries: int
    sight_steps: int
    sight_lr: float
    box_steps: int
    mask_steps: int
    polish_steps: int
    polish_lr: float
    deep_steps: int
    lr: float
    batch: int
    prompts: int
    present: float
    photos: list[str]
    test_photos: list[str]
    test_scenes: int


def build_processor():
    """A real `Sam3Processor` for 64 px; a CLIP tokenizer that has our words and takes all others by their bytes."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Processor

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges: list[tuple[str, str]] = []
    for word in sorted({word for text in PHRASES for word in text.split()}):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:  # from the left: r e d</w> -> re d</w> -> red</w>
            if parts[0] + parts[1] not in vocab:
                vocab[parts[0] + parts[1]] = len(vocab)
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=32)
    size = {"height": SIZE, "width": SIZE}
    images = Sam3ImageProcessor(size=size, mask_size={"height": SIZE // 2, "width": SIZE // 2})
    return Sam3Processor(images, tokenizer)


def build_config(recipe: Recipe, tokenizer):
    """`Sam3Config` of the tiny model."""
    from transformers import Sam3Config

    hidden, grid = recipe.hidden, SIZE // recipe.patch
    parts = {"hidden_size": hidden, "num_attention_heads": 4}
    detr = {**parts, "intermediate_size": 2 * hidden, "dropout": 0.0}
    return Sam3Config(
        vision_config={
            "model_type": "sam3_vision_model",
            "fpn_hidden_size": hidden,
            "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
            "backbone_config": {
                **parts,
                "model_type": "sam3_vit_model",
                "intermediate_size": 4 * hidden,
                "num_hidden_layers": recipe.vision_layers,
                "image_size": SIZE,
                "pretrain_image_size": SIZE,
                "patch_size": recipe.patch,
                "window_size": 4,
                "global_attn_indexes": list(range(1, recipe.vision_layers)),
            },
        },
        text_config={
            **parts,
            "model_type": "clip_text_model",
            "vocab_size": len(tokenizer),
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 1,
            "projection_dim": hidden,
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        geometry_encoder_config={**detr, "num_layers": 1},
        detr_encoder_config={**detr, "num_layers": 1},
        detr_decoder_config={**detr, "num_layers": 2, "num_queries": recipe.queries},
        mask_decoder_config={**parts},
    )


def sines(grid: int, hidden: int) -> torch.Tensor:
    """Sine and cosine positions of a grid, `[1, grid^2, hidden]`."""
    turns = torch.arange(grid).float()[:, None] / 100 ** (torch.arange(hidden // 4).float() / (hidden // 4))
    one = torch.cat([turns.sin(), turns.cos()], 1)
    rows, columns = one[:, None].expand(-1, grid, -1), one[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], -1).reshape(1, grid * grid, hidden)


def whitened(pixels: torch.Tensor, patch: int, count: int) -> torch.Tensor:
    """The first `count` principal components of patches, each divided by its standard deviation.

    Args:
        pixels: normalised pictures `[B, 3, H, W]`.

    Returns:
        A patch projection `[count, 3, patch, patch]` whose outputs have unit variance.
    """
    patches = nn.functional.unfold(pixels, patch, stride=patch).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    vectors = vectors * vectors.sum(0).sign()  # eigenvectors come with either sign
    return (vectors / values.clamp_min(1e-8).sqrt()).T.reshape(count, 3, patch, patch).float()


def build_model(recipe: Recipe, tokenizer, photos: Mapping[str, np.ndarray]):
    """An untrained model, initialised so that it can learn: see the module's first lines."""
    from transformers import Sam3Model

    model = Sam3Model(build_config(recipe, tokenizer))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    vit, decoder = model.vision_encoder.backbone.embeddings, model.detr_decoder
    scenes = batch(np.random.default_rng([recipe.seed, 1]), photos, 400)
    side = math.ceil(math.sqrt(recipe.queries))
    places = torch.tensor([[(i % side + 0.5) / side, (i // side + 0.5) / side] for i in range(recipe.queries)])
    with torch.no_grad():
        vit.patch_embeddings.projection.weight.copy_(whitened(scenes.pixels, recipe.patch, recipe.hidden))
        vit.position_embeddings.copy_(0.5 * sines(SIZE // recipe.patch, recipe.hidden))
        sizes = torch.full_like(places, 0.33)
        decoder.reference_points.weight.copy_(torch.cat([places, sizes], 1).logit())
        decoder.box_head.layer3.weight.mul_(0.1)
        decoder.presence_head.layer3.weight.mul_(0.1)
    return model


def deepen(model) -> None:
    """Give the decoder a third layer, which begins as a copy of its second: one more look at what other queries took.

    The second layer is the first to know where the queries of the first one ended, and had to settle by itself which
    of two that found the same thing keeps it.
    """
    layers = model.detr_decoder.layers
    layers.append(copy.deepcopy(layers[-1]))
    model.config.detr_decoder_config.num_layers = len(layers)
