"""How the SAM3 stand-in learns: batches of scenes and prompts, one vision pass a picture, and the losses."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from qwenlab.standins.sam3_build import Recipe
from qwenlab.standins.sam3_data import Scenes, batch, prompts
from qwenlab.standins.sam3_losses import Sight, mask_loss, query_loss
from qwenlab.thinkseg.vocabulary import PHRASES


class Trainer:
    """Draws batches and computes the losses of the three stages."""

    def __init__(self, recipe: Recipe, model, processor, photos: Mapping[str, np.ndarray], stream: int = 2):
        self.recipe, self.model, self.photos = recipe, model, photos
        self.rng = np.random.default_rng([recipe.seed, stream])
        self.sight = Sight(recipe.hidden)
        self.words = processor.tokenizer(list(PHRASES), padding=True, return_tensors="pt")
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

    def detect_loss(self, step: int, masks: bool = False, aid: float = 1.0, places: float = 1.0) -> torch.Tensor:
        """All later stages: prompts, one vision pass a picture; with masks, some of those that are there get theirs.

        Args:
            aid: weight of what the throw-away heads say about colour and shape.
            places: weight of what they say about boxes, and about which patches a prompt asks for.
        """
        model, count = self.model, self.recipe.prompts
        scenes = self._scenes()
        vision, classes, distance = self._see(scenes)
        asked = torch.tensor([prompts(self.rng, looks, count, self.recipe.present) for looks in scenes.looks]).flatten()
        scene_of = torch.arange(len(scenes.looks)).repeat_interleave(count)
        fits = [scenes.looks[s] == look for s, look in zip(scene_of.tolist(), asked.tolist(), strict=True)]
        targets = [scenes.boxes[s][fit] for s, fit in zip(scene_of.tolist(), fits, strict=True)]

        text = model.get_text_features(**self.words).pooler_output[asked]
        mask = self.words["attention_mask"][asked].bool()
        levels = vision.fpn_hidden_states[:-1]
        where = vision.fpn_position_encoding[2].expand(len(scenes.looks), -1, -1, -1)[scene_of]
        encoded = model.detr_encoder(
            vision_features=[levels[2][scene_of]], text_features=text, vision_pos_embeds=[where], text_mask=mask
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

        loss = 0.5 * aid * classes + 4.5 * places * distance
        pairs = []
        for layer in range(len(states)):
            own, matched = query_loss(logits[layer], boxes[layer], decoded.presence_logits[layer][:, 0], targets)
            loss = loss + own
            pairs.append(matched)
        wanted = torch.stack([scenes.masks[s][fit].sum(0) for s, fit in zip(scene_of.tolist(), fits, strict=True)])
        cover = nn.functional.avg_pool2d(wanted[:, None], self.recipe.patch).flatten(1)
        fused = self.sight.fusion(encoded.last_hidden_state).squeeze(-1)
        loss = loss + places * nn.functional.binary_cross_entropy_with_logits(fused, cover.clamp(0, 1))
        if not masks:
            return loss

        there = [i for i, own in enumerate(targets) if len(own)]
        chosen = self.rng.permutation(there)[:10].tolist()
        half = nn.functional.avg_pool2d(wanted[chosen][:, None], 2)
        drawn = model.mask_decoder(
            decoder_queries=states[:, chosen].transpose(0, 1).flatten(1, 2),  # of all layers, side by side
            backbone_features=[level[scene_of[chosen]] for level in levels],
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
