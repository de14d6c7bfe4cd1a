"""How good the SAM3 stand-in is, on scenes it never saw, through the library's own forward pass and post-processing."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from qwenlab.standins.sam3_data import absent, batch
from qwenlab.thinkseg.drawing import SIZE
from qwenlab.thinkseg.masks import mask_iou
from qwenlab.thinkseg.vocabulary import PHRASES, SHAPES


@torch.inference_mode()
def held_out(model, processor, photos: Mapping[str, np.ndarray], seed: int, count: int) -> dict[str, float]:
    """Ask for everything that is there and for as much that is not, and compare.

    Returns:
        `instance_iou` (mean over instances, a missed one counts 0), `f1`, `precision`, `recall` (at IoU 0.5 and score
        0.5), `presence_accuracy`, and that of the absent phrases with `wrong_shape` and of those that are there.
    """
    rng = np.random.default_rng([seed, 3])
    ious: list[float] = []
    right: dict[str, list[bool]] = {"present": [], "wrong_shape": [], "other": []}
    hits = wrong = missed = 0
    for _ in range(count):
        scenes = batch(rng, photos, 1)
        looks = scenes.looks[0].tolist()
        there = sorted(set(looks))
        asked = [*there, *(absent(rng, there) for _ in there)]
        words = processor(text=[PHRASES[look] for look in asked], return_tensors="pt")
        vision = model.get_vision_features(scenes.pixels)
        for name in ("fpn_hidden_states", "fpn_position_encoding"):
            vision[name] = tuple(level.expand(len(asked), -1, -1, -1) for level in vision[name])
        output = model(vision_embeds=vision, **words)
        sizes = [(SIZE, SIZE)] * len(asked)
        results = processor.image_processor.post_process_instance_segmentation(output, 0.5, target_sizes=sizes)
        for look, presence, result in zip(asked, output.presence_logits[:, 0].tolist(), results, strict=True):
            truth = scenes.masks[0][scenes.looks[0] == look].numpy()
            near = look // len(SHAPES) in {other // len(SHAPES) for other in there}
            kind = "present" if look in there else "wrong_shape" if near else "other"
            right[kind].append((presence > 0) == (look in there))
            # Where nothing is found, the library leaves the masks at their low resolution.
            found = result["masks"].numpy() if len(result["masks"]) else np.zeros((0, SIZE, SIZE))
            table = mask_iou(found, truth)
            rows, columns = linear_sum_assignment(-table)
            best = table[rows, columns]
            ious += [*best.tolist(), *[0.0] * (len(truth) - len(best))]
            good = int((best >= 0.5).sum())
            hits, wrong, missed = hits + good, wrong + len(found) - good, missed + len(truth) - good
    every = [value for values in right.values() for value in values]
    return {
        "instance_iou": float(np.mean(ious)),
        "f1": 2 * hits / (2 * hits + wrong + missed),
        "precision": hits / max(hits + wrong, 1),
        "recall": hits / (hits + missed),
        "presence_accuracy": float(np.mean(every)),
        "present_accuracy": float(np.mean(right["present"])),
        "wrong_shape_accuracy": float(np.mean(right["wrong_shape"])),
    }
