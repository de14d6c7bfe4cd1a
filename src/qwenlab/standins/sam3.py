"""Make the SAM3 stand-in: a tiny, unmodified `Sam3Model` with its processor. Run: dvc repro -f -s standin-sam3.

About fifteen minutes on one thread. What makes it see is the first weight: patches are projected on their whitened
principal components, so that shape, which is little of a patch's variance, is as loud as brightness.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.standins.loop import fit
from qwenlab.standins.sam3_data import Scenes, batch, prompts
from qwenlab.standins.sam3_eval import held_out
from qwenlab.standins.sam3_losses import Sight, mask_loss, query_loss
from qwenlab.thinkseg.drawing import SIZE, load_photos
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


class Trainer:
    """Draws batches and computes the losses of the three stages."""

    def __init__(self, recipe: Recipe, model, processor, photos: Mapping[str, np.ndarray], stream: int = 2):
        self.recipe, self.model, self.photos = recipe, model, photos
        self.rng = np.random.default_rng([recipe.seed, stream])
        self.sight = Sight(recipe.hidden)
        self.words = processor.tokenizer(list(PHRASES), padding="max_length", max_length=32, return_tensors="pt")
        self.right = 0.0  # share of shapes that the last batch's features tell

    def _scenes(self) -> Scenes:
        return batch(self.rng, self.photos, self.recipe.batch)

    def _see(self, scenes: Scenes):
        """Vision features of a batch, and what the throw-away heads say about them."""
        vision = self.model.get_vision_features(scenes.pixels)
        patches = vision.fpn_hidden_states[2].flatten(2).transpose(1, 2)  # the level the DETR encoder reads
        classes, distance, right = self.sight.losses(patches, scenes)
        self.right = 0.95 * self.right + 0.05 * right.item()
        return vision, classes, distance

    def sight_loss(self, step: int) -> torch.Tensor:
        """Stage 0: the vision tower alone learns to see."""
        _, classes, distance = self._see(self._scenes())
        return classes + 5 * distance

    def detect_loss(self, step: int, masks: bool = False, aided: bool = True) -> torch.Tensor:
        """Stages 1 to 3: prompts, one vision pass a picture; with masks, some of those that are there get theirs.

        Args:
            aided: whether the throw-away heads go on teaching.
        """
        model, count = self.model, self.recipe.prompts
        scenes = self._scenes()
        vision, classes, distance = self._see(scenes)
        weight = float(aided)
        asked = torch.tensor([prompts(self.rng, looks, count, self.recipe.present) for looks in scenes.looks]).flatten()
        scene_of = torch.arange(len(scenes.looks)).repeat_interleave(count)
        fits = [scenes.looks[s] == look for s, look in zip(scene_of.tolist(), asked.tolist(), strict=True)]
        targets = [scenes.boxes[s][fit] for s, fit in zip(scene_of.tolist(), fits, strict=True)]

        text = model.get_text_features(**self.words).pooler_output[asked]
        mask = self.words["attention_mask"][asked].bool()
        levels = [level[scene_of] for level in vision.fpn_hidden_states[:-1]]
        places = vision.fpn_position_encoding[2].expand(len(scenes.looks), -1, -1, -1)[scene_of]
        encoded = model.detr_encoder(
            vision_features=[levels[2]], text_features=text, vision_pos_embeds=[places], text_mask=mask
        )
        decoded = model.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=encoded.text_features,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            text_mask=mask,
            spatial_shapes=encoded.spatial_shapes,
        )
        states = decoded.intermediate_hidden_states  # [layers, P, Q, H]
        boxes = (decoded.reference_boxes.logit(eps=1e-5) + model.detr_decoder.box_head(states)).sigmoid()
        logits = model.dot_product_scoring(states, encoded.text_features, mask).squeeze(-1)

        loss = weight * (2 * distance + 0.5 * (classes + 5 * distance))
        pairs = []
        for layer in range(len(states)):
            own, matched = query_loss(logits[layer], boxes[layer], decoded.presence_logits[layer][:, 0], targets)
            loss = loss + own
            pairs.append(matched)
        wanted = torch.stack([scenes.masks[s][fit].sum(0) for s, fit in zip(scene_of.tolist(), fits, strict=True)])
        cover = nn.functional.avg_pool2d(wanted[:, None], self.recipe.patch).flatten(1)
        fused = self.sight.fusion(encoded.last_hidden_state).squeeze(-1)
        loss = loss + weight * nn.functional.binary_cross_entropy_with_logits(fused, cover.clamp(0, 1))
        if not masks:
            return loss

        there = [i for i, own in enumerate(targets) if len(own)]
        chosen = self.rng.permutation(there)[:10].tolist()
        half = nn.functional.avg_pool2d(wanted[chosen][:, None], 2)
        drawn = model.mask_decoder(
            decoder_queries=states[:, chosen].transpose(0, 1).flatten(1, 2),  # of all layers, side by side
            backbone_features=[level[chosen] for level in levels],
            encoder_hidden_states=encoded.last_hidden_state[chosen],
            prompt_features=text[chosen],
            prompt_mask=mask[chosen],
        )
        for layer in range(len(states)):
            found, truth = [], []
            for row, i in enumerate(chosen):
                queries, things = pairs[layer][i]
                found.append(drawn.pred_masks[row, [layer * self.recipe.queries + query for query in queries]])
                own = scenes.masks[int(scene_of[i])][fits[i]][things]
                truth.append(nn.functional.avg_pool2d(own[:, None], 2)[:, 0])
            loss = loss + mask_loss(torch.cat(found), torch.cat(truth))
        semantic = nn.functional.binary_cross_entropy_with_logits(drawn.semantic_seg, half.clamp(0, 1))
        return loss + 0.5 * semantic


def polish(recipe: Recipe, model, processor, photos: Mapping[str, np.ndarray]) -> None:
    """Stage 3: the same losses on fresh scenes, without the throw-away heads."""
    trainer = Trainer(recipe, model, processor, photos, stream=4)
    loss = partial(trainer.detect_loss, masks=True, aided=False)
    fit(model.parameters(), loss, recipe.polish_steps, recipe.polish_lr, "polish")


README = """# Stand-in for facebook/sam3 (segmentation by a phrase)

A tiny, unmodified `Sam3Model` ({millions:.2f} M parameters, {recipe.hidden} wide, pictures of 64 px) with its
`Sam3Processor`, loaded by `from_pretrained`. It stands for the published checkpoint where none can be had, so that
the same code runs on a laptop. It knows 18 phrases: a colour ({colors}) and a shape ({shapes}).

Made by `dvc repro -f -s standin-sam3` from the recipe `standins.sam3` in params.yaml, on scenes drawn on the fly over
textures and the photographs {photos}. Patches are projected on their whitened principal components at first; then
{recipe.sight_steps} steps teach the vision tower colour, shape and place by throw-away heads, {recipe.box_steps} steps
boxes, scores and presence (two thirds of the prompts fit something, most others nearly do), {recipe.mask_steps} steps
masks as well, {recipe.polish_steps} steps without the throw-away heads.

On {recipe.test_scenes} fresh scenes over textures and other photographs: instance IoU {quality[instance_iou]:.3f} (a
missed instance counts 0), F1 at IoU 0.5 {quality[f1]:.3f}, presence of a phrase told right
{quality[presence_accuracy]:.3f}; right colour with wrong shape, the hardest, {quality[wrong_shape_accuracy]:.3f}.

Not shown: phrases of one word, pairs of colour and shape that were never trained, box prompts (their encoder is as it
was initialised). Weights are fp16.
"""


def train(recipe: Recipe, assets: str | Path, out: str | Path) -> dict[str, float]:
    """Train, save model and processor to `out` in fp16, and return the quality on fresh scenes."""
    from qwenlab.thinkseg.vocabulary import COLORS, SHAPES

    seed_everything(recipe.seed)
    photos, others = load_photos(assets, recipe.photos), load_photos(assets, recipe.test_photos)
    processor = build_processor()
    model = build_model(recipe, processor.tokenizer, photos)
    trainer = Trainer(recipe, model, processor, photos)
    vision = [*model.vision_encoder.parameters(), *trainer.sight.parameters()]
    fit(vision, trainer.sight_loss, recipe.sight_steps, recipe.sight_lr, "sight", floor=0.1)
    print(f"features tell {trainer.right:.3f} of the shapes", flush=True)
    every = [*model.parameters(), *trainer.sight.parameters()]
    fit(every, trainer.detect_loss, recipe.box_steps, recipe.lr, "boxes", floor=0.1)
    fit(every, lambda step: trainer.detect_loss(step, masks=True), recipe.mask_steps, recipe.lr, "masks")
    polish(recipe, model, processor, photos)
    model.eval().half().float()  # judged with the weights that are stored
    quality = held_out(model, processor, others, recipe.seed, recipe.test_scenes)
    quality = {name: float(f"{value:.4g}") for name, value in quality.items()}
    facts = {
        "millions": sum(p.numel() for p in model.parameters()) / 1e6,
        "colors": ", ".join(COLORS),
        "shapes": ", ".join(SHAPES),
        "photos": ", ".join(Path(name).stem for name in recipe.photos),
    }
    with atomic_dir(out) as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(README.format(recipe=recipe, quality=quality, **facts), encoding="utf-8")
    return quality
