"""Make the SAM3 stand-in: a tiny, unmodified `Sam3Model` with its processor. Run: dvc repro -f -s standin-sam3.

About 24 minutes on two free cores (by the times of its steps; the stored weights were made in three sittings).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from qwenlab.core.io import atomic_dir
from qwenlab.core.seeding import seed_everything
from qwenlab.standins.loop import fit
from qwenlab.standins.sam3_build import Recipe, build_model, build_processor, deepen
from qwenlab.standins.sam3_eval import held_out
from qwenlab.standins.sam3_training import Trainer
from qwenlab.thinkseg.drawing import load_photos
from qwenlab.thinkseg.vocabulary import COLORS, SHAPES


def polish(recipe: Recipe, model, processor, photos: Mapping[str, np.ndarray]) -> None:
    """Stage 3: the same losses on fresh scenes, without the throw-away heads."""
    trainer = Trainer(recipe, model, processor, photos, stream=4)
    loss = partial(trainer.detect_loss, masks=True, aid=0.0, places=0.0)
    fit(model.parameters(), loss, recipe.polish_steps, recipe.polish_lr, "polish")


def go_deeper(recipe: Recipe, model, processor, photos: Mapping[str, np.ndarray]) -> None:
    """Stage 4: a third decoder layer, and a long cosine; new throw-away heads for colour and shape fade out."""
    deepen(model)
    trainer = Trainer(recipe, model, processor, photos, stream=5)

    def loss(step: int) -> torch.Tensor:
        return trainer.detect_loss(step, masks=True, aid=1 - step / recipe.deep_steps, places=0.0)

    fit([*model.parameters(), *trainer.sight.parameters()], loss, recipe.deep_steps, recipe.polish_lr, "deep")
    print(f"features tell {trainer.right:.3f} of the shapes", flush=True)


README = """# Stand-in for facebook/sam3 (segmentation by a phrase)

A tiny, unmodified `Sam3Model` ({millions:.2f} M parameters, {recipe.hidden} wide, pictures of 64 px) with its
`Sam3Processor`, loaded by `from_pretrained`. It stands for the published checkpoint where none can be had, so that
the same code runs on a laptop. It knows 18 phrases: a colour ({colors}) and a shape
({shapes}).

Made by `dvc repro -f -s standin-sam3` from the recipe `standins.sam3` in params.yaml, on scenes drawn on the fly over
textures and the photographs {photos}.
Patches are projected on their whitened principal components at first; then {recipe.sight_steps} steps teach the vision
tower colour, shape and place by throw-away heads, {recipe.box_steps} steps boxes, scores and presence (two thirds of
the prompts fit something, most others nearly do), {recipe.mask_steps} steps masks as well, {recipe.polish_steps} steps
without the throw-away heads, and {recipe.deep_steps} with a third decoder layer, which begins as a copy of the second
(the first layer that knows where other queries ended), and with new heads for colour and shape, which fade out.

On {recipe.test_scenes} fresh scenes over textures and other photographs: instance IoU {quality[instance_iou]:.3f} (a
missed instance counts 0), F1 at IoU 0.5 {quality[f1]:.3f}, presence of a phrase told right
{quality[presence_accuracy]:.3f}; right colour with wrong shape, the hardest, {quality[wrong_shape_accuracy]:.3f}.

Not shown: phrases of one word, pairs of colour and shape that were never trained, box prompts (their encoder is as it
was initialised). Weights are fp16.
"""


def train(recipe: Recipe, assets: str | Path, out: str | Path) -> dict[str, float]:
    """Train, save model and processor to `out` in fp16, and return the quality on fresh scenes."""
    seed_everything(recipe.seed)
    photos = load_photos(assets, recipe.photos)
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
    go_deeper(recipe, model, processor, photos)
    return judge_and_save(recipe, model, processor, assets, out)


def judge_and_save(recipe: Recipe, model, processor, assets: str | Path, out: str | Path) -> dict[str, float]:
    """Write the folder with its README; returns the quality, on scenes over other photos than those trained on."""
    others = load_photos(assets, recipe.test_photos)
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
