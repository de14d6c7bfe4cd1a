"""Make the vision-language stand-in: a tiny `Qwen2_5_VLForConditionalGeneration`. Run: dvc repro -f -s standin-vl

About 20 minutes. First captions, with the vision tower; then the tower is frozen, a bank of its cell features is
made, and scenes are put together from the bank by index: samples without limit at the cost of the language model.
"""

from pathlib import Path

import numpy as np
import torch

from qwenlab.core.io import atomic_dir
from qwenlab.core.scenes import WORLD, random_scenes
from qwenlab.core.seeding import seed_everything
from qwenlab.standins.loop import fit
from qwenlab.standins.vl_build import CELL, Recipe, build_model, build_processor
from qwenlab.standins.vl_data import TASKS, Batches, Chat, Scenes, pictures


def embedded(model, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """`[B, S, H]` inputs: token embeddings, with features `[images * cells, H]` where an image token stands."""
    table = model.get_input_embeddings()(ids)
    where = (ids == model.config.image_token_id)[..., None].expand_as(table)
    return table.masked_scatter(where, features.to(table.dtype))


def answer_loss(model, batch: dict[str, torch.Tensor], features: torch.Tensor, first: float = 1.0) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; the first one, which decides the rest, weighs `first`."""
    inputs = embedded(model, batch["input_ids"], features)
    hidden = model.model.language_model(
        inputs_embeds=inputs, attention_mask=batch["attention_mask"], position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state  # fmt: skip
    labels = batch["labels"][:, 1:]
    there = labels != -100
    weights = torch.where(there.cumsum(1) == 1, first, 1.0)[there]
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][there]), labels[there], reduction="none")
    return (losses * weights).sum() / weights.sum()


class Tower:
    """Pictures to features: by the tower itself, or from a bank of features that it made once."""

    def __init__(self, model, processor, seed: int):
        self.model, self.images = model, processor.image_processor
        self.rng = np.random.default_rng(seed)
        self.bank: list[torch.Tensor] = []

    def features(self, scenes: np.ndarray) -> torch.Tensor:
        """`[N * cells, H]` of freshly drawn scenes `[N, cells]`."""
        drawn = pictures(scenes, self.rng, CELL * WORLD.columns)
        inputs = self.images(list(drawn), return_tensors="pt")
        out = self.model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        return torch.cat(out.pooler_output)

    @torch.no_grad()
    def fill(self, count: int) -> None:
        """Keep the features of `count` random scenes, by item."""
        scenes = random_scenes(count, self.rng)
        found = torch.cat([self.features(part) for part in np.array_split(scenes, max(1, count // 500))])
        items = torch.from_numpy(scenes.reshape(-1))
        self.bank = [found[items == item] for item in range(WORLD.items)]

    def banked(self, chats: list[Chat]) -> torch.Tensor:
        """Features `[images * cells, H]` of all pictures of a batch, each cell at random from the bank."""
        items = [item for chat in chats for scene in chat.images for item in scene]
        chosen = self.rng.random(len(items))
        return torch.stack([self.bank[i][int(u * len(self.bank[i]))] for i, u in zip(items, chosen, strict=True)])


def shares(progress: float) -> list[float]:
    """How the tasks of a batch are mixed (order of `TASKS`): cell by cell first, whole repairs later."""
    if progress < 0.2:
        return [0.1, 0.15, 0.4, 0.2, 0.1, 0.05]
    return [0.05, 0.15, 0.1, 0.1, 0.4, 0.2]


@torch.no_grad()
def quality(model, make: Batches, tower: Tower, seed: int, count: int) -> dict[str, float]:
    """Share of answers that greedy decoding writes exactly (teacher-forced argmax everywhere), held-out targets."""
    scenes, found = Scenes(seed, held=True), {}
    for task in TASKS:
        chats = [scenes.chat(task) for _ in range(count)]
        right = 0
        for start in range(0, count, 100):
            part = chats[start : start + 100]
            batch = make(part)
            features = tower.banked(part) if part[0].images else torch.zeros(0, model.config.text_config.hidden_size)
            hidden = model.model.language_model(
                inputs_embeds=embedded(model, batch["input_ids"], features),
                attention_mask=batch["attention_mask"], position_ids=batch["position_ids"], use_cache=False,
            ).last_hidden_state  # fmt: skip
            labels = batch["labels"][:, 1:]
            same = (model.lm_head(hidden[:, :-1]).argmax(-1) == labels) | (labels == -100)
            right += int(same.all(1).sum())
        found[task] = right / count
    return found


README = """# Stand-in for Qwen/Qwen2.5-VL-7B-Instruct

A tiny `Qwen2_5_VLForConditionalGeneration` ({millions:.2f} M parameters) with its processor and a tokenizer of {vocab}
tokens, loaded by `from_pretrained`. It stands for the published checkpoint where none can be had, so that the same
code runs on a laptop. Nothing that a seed document asks to train is in it: it has no latent tokens, writes no
observation tags, and was never asked to check a drawing against a chained goal at once.

Made by `dvc repro -f -s standin-vl` from the recipe `standins.vl` in params.yaml: {recipe.caption_steps} steps of
captions that train the vision tower, then {recipe.steps} + {recipe.last_steps} steps of
six skills with the tower frozen. A picture of 32
pixels has 2x2 cells; patches of 8 pixels merged two by two make one token a cell, and the one window block sees one
cell. Pictures were varied and spoilt a little (noise, blur, tint, shift), as a generator's are.

Held-out targets (1 in 5 by hash), share of answers right to the last word, n = {count} each:

| skill | right |
| --- | --- |
{table}

Weights are fp16.
"""
SKILLS = {
    "caption": "says what is drawn, four cells",
    "goal": "writes a chained goal out",
    "cells": "compares a drawing with a goal, cell by cell",
    "cells_images": "compares two drawings, cell by cell",
    "fix": "names the first repair of a drawing, given the goal",
    "fix_images": "names the first repair of a drawing, given a second one",
}


def train(recipe: Recipe, out: str | Path, count: int = 1000) -> dict[str, float]:
    """Train, save model and processor to `out` in fp16, and return the quality on held-out targets."""
    seed_everything(recipe.seed)
    processor = build_processor(recipe)
    model = build_model(recipe, processor.tokenizer)
    side = 2 * WORLD.rows
    make = Batches(
        processor.tokenizer,
        lambda kinds, images: model.model.get_rope_index(
            torch.zeros_like(kinds), kinds, image_grid_thw=torch.tensor([[1, side, side]] * images) if images else None
        )[0],
    )
    scenes, tower = Scenes(recipe.seed + 1), Tower(model, processor, recipe.seed + 2)

    def caption(step: int) -> torch.Tensor:
        chats = [scenes.chat("caption") for _ in range(recipe.caption_batch)]
        return answer_loss(model, make(chats), tower.features(np.array([chat.images[0] for chat in chats])))

    fit(model.parameters(), caption, recipe.caption_steps, recipe.caption_lr, "captions")
    model.model.visual.requires_grad_(False)
    tower.fill(4000)

    skills(recipe, model, make, tower, scenes)
    tower.fill(2000)
    found = {name: float(f"{value:.4g}") for name, value in quality(model, make, tower, recipe.seed + 4, count).items()}
    save(model, processor, recipe, found, count, out)
    return found


def skills(recipe: Recipe, model, make: Batches, tower: Tower, scenes: Scenes) -> None:
    """The language model's part. After `steps` it names every repair but calls no drawing right, with the last cell's
    words in mind when it has to say the first of the answer; so the last steps have more right drawings, and the first
    token weighs more."""

    def skill(step: int, last: bool) -> torch.Tensor:
        shares_ = shares(1.0 if last else step / recipe.steps)
        chats = [scenes.chat(task) for task in scenes.rng.choice(TASKS, recipe.batch, p=shares_)]
        if (step + 1) % 500 == 0:
            print(step + 1, quality(model, make, tower, recipe.seed + 3, 200), flush=True)
        return answer_loss(model, make(chats), tower.banked(chats), recipe.first_token if last else 1.0)

    fit(model.parameters(), lambda step: skill(step, False), recipe.steps, recipe.lr, "skills", log_every=100)
    scenes.right = recipe.last_right
    fit(model.parameters(), lambda step: skill(step, True), recipe.last_steps, recipe.last_lr, "last", log_every=100)


def save(model, processor, recipe: Recipe, found: dict[str, float], count: int, out: str | Path) -> None:
    """Model, processor and README."""
    table = "\n".join(f"| {SKILLS[name]} | {value:.3f} |" for name, value in found.items())
    facts = {"millions": sum(p.numel() for p in model.parameters()) / 1e6, "vocab": len(processor.tokenizer)}
    with atomic_dir(out) as folder:
        model.to(torch.float16).save_pretrained(folder)
        processor.save_pretrained(folder)
        text = README.format(recipe=recipe, table=table, count=count, **facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
