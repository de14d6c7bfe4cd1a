"""Batches, losses and scores of the omni stand-in."""

import re
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from qwenlab.core.params import Params
from qwenlab.standins.omni_data import HEADS, Watched, content_words, patches, phrase_tokens, talk
from qwenlab.thinkseg.questions import MOVES, PLACES

SPECIAL = {
    "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>", "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    vocab: int
    patch: int
    vision_hidden: int
    vision_layers: int
    mels: int
    hop: int
    clips: int
    test_clips: int
    photos: list[str]
    test_photos: list[str]
    sight_steps: int
    sight_lr: float
    steps: int
    batch: int
    lr: float
    sight_weight: float
    content_weight: float


class Watching:
    """Batches of clips as tensors, and the two losses."""

    def __init__(self, recipe: Recipe, model, processor, clips: list[Watched]):
        self.recipe, self.model, self.processor, self.clips = recipe, model, processor, clips
        self.rng = np.random.default_rng(recipe.seed + 5)
        self.frames = torch.from_numpy(np.stack([clip.frames for clip in clips]))
        self.labels = torch.from_numpy(np.stack([clip.labels for clip in clips]))
        side = 64 // recipe.patch
        # Patches come in the order of the cells that they are merged to, 2 x 2 at a time.
        order = np.arange(side * side).reshape(side // 2, 2, side // 2, 2).transpose(0, 2, 1, 3).ravel()
        self.fine = torch.from_numpy(np.stack([clip.fine for clip in clips])[..., order])
        features = [
            processor.feature_extractor(
                [clip.sound for clip in clips[start : start + 200]], sampling_rate=16000, return_tensors="pt",
                padding="max_length", return_attention_mask=True,
            ) for start in range(0, len(clips), 200)
        ]  # fmt: skip
        self.mels = torch.cat([one["input_features"] for one in features])
        self.mel_mask = torch.cat([one["attention_mask"] for one in features])
        self.heads = torch.nn.ModuleDict(
            {
                name + part: torch.nn.Linear(width, len(words) + 1)
                for part, width in (("", recipe.hidden), ("_patch", recipe.vision_hidden))
                for name, words in HEADS.items()
            }
        )
        weights = torch.ones(len(processor.tokenizer))
        heavy = [*content_words(), *phrase_tokens()[-16:], *"ABCD"]
        for word in heavy:
            ids = processor.tokenizer(word)["input_ids"]
            weights[ids[-1]] = recipe.content_weight
        self.weights = weights
        self.grid = [3, side, side]

    def pick(self) -> np.ndarray:
        """Indices of a batch."""
        return self.rng.integers(len(self.clips), size=self.recipe.batch)

    def pixels(self, picked: np.ndarray) -> torch.Tensor:
        """Patches of a batch."""
        video = self.processor.video_processor
        return patches(self.frames[picked], self.recipe.patch, video.image_mean, video.image_std)

    def dense(self, seen: tuple[torch.Tensor, torch.Tensor], picked: np.ndarray) -> torch.Tensor:
        """Loss of saying what fills each cell and each patch. Empty ones weigh less, there are many.

        Args:
            seen: by the vision tower, tokens of cells `[B * cells, H]` and states of patches `[4 * B * cells, V]`.
        """
        total = torch.zeros(())
        for part, states, every in (
            ("", seen[0], self.labels),
            ("_patch", seen[1], self.fine),
        ):
            labels = every[picked].permute(1, 0, 2, 3).reshape(len(HEADS), -1)
            for (name, words), wanted in zip(HEADS.items(), labels, strict=True):
                weight = torch.ones(len(words) + 1)
                weight[0] = 0.3
                total = total + F.cross_entropy(self.heads[name + part](states), wanted, weight=weight)
        return total / len(HEADS)

    def see(self, picked: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of cells and states of patches of the vision tower."""
        grid = torch.tensor([self.grid] * len(picked))
        seen = self.model.model.visual(self.pixels(picked), grid_thw=grid)
        return seen.pooler_output, seen.last_hidden_state

    def sight(self, _: int) -> torch.Tensor:
        """Loss of the warm-up."""
        picked = self.pick()
        return self.dense(self.see(picked), picked)

    def inputs(self, picked: np.ndarray, pairs: list[tuple[str, str]]) -> tuple[dict, torch.Tensor]:
        """(what the model takes but for pixels, labels), padded on the right."""
        tokenizer = self.processor.tokenizer
        lengths = self.mel_mask[picked].sum(-1)
        sounds = ((lengths - 1) // 2 + 1 - 2) // 2 + 1
        cells = int(np.prod(self.grid)) // 4
        rows = []
        for (prompt, answer), count in zip(pairs, sounds.tolist(), strict=True):
            prompt = prompt.replace(SPECIAL["video_token"], SPECIAL["video_token"] * cells)
            prompt = prompt.replace(SPECIAL["audio_token"], SPECIAL["audio_token"] * count)
            before = tokenizer(prompt)["input_ids"]
            after = tokenizer(f"{answer}<|im_end|>")["input_ids"]
            rows.append((before, after))
        longest = max(len(before) + len(after) for before, after in rows)
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for row, (before, after) in enumerate(rows):
            end = len(before) + len(after)
            ids[row, :end], mask[row, :end] = torch.tensor(before + after), 1
            labels[row, len(before) : end] = torch.tensor(after)
        keep = int(lengths.max())
        return {
            "input_ids": ids, "attention_mask": mask, "input_features": self.mels[picked][:, :, :keep],
            "feature_attention_mask": self.mel_mask[picked][:, :keep],
            "video_grid_thw": torch.tensor([self.grid] * len(picked)),
            "video_second_per_grid": torch.tensor([1.0] * len(picked)),
        }, labels  # fmt: skip

    def loss(self, _: int) -> torch.Tensor:
        """Weighted cross-entropy of the answer, and the dense loss beside it."""
        picked = self.pick()
        inputs, labels = self.inputs(picked, [talk(self.clips[index], self.rng) for index in picked])
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = self.model.model.visual.register_forward_hook(
            lambda _m, _i, out: seen.append((out.pooler_output, out.last_hidden_state))
        )
        logits = self.model(pixel_values_videos=self.pixels(picked), **inputs).logits
        hook.remove()
        said, wanted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        there = wanted >= 0
        losses = F.cross_entropy(said[there], wanted[there], reduction="none")
        weights = self.weights[wanted[there]]
        language = (losses * weights).sum() / weights.sum()
        return language + self.recipe.sight_weight * self.dense(seen[0], picked)


@torch.no_grad()
def sight_accuracy(watching: Watching, count: int = 300) -> dict[str, float]:
    """Share of filled cells whose colour, shape, size and motion are told right."""
    picked = np.arange(min(count, len(watching.clips)))
    tokens = watching.see(picked)[0]
    labels = watching.labels[picked].permute(1, 0, 2, 3).reshape(len(HEADS), -1)
    there = labels[0] > 0
    return {
        name: (watching.heads[name](tokens).argmax(-1) == wanted)[there].float().mean().item()
        for name, wanted in zip(HEADS, labels, strict=True)
    }


SENTENCE = re.compile(
    r"A (?P<size>\w+) (?P<color>\w+) (?P<category>\w+) starts (?P<place>[\w ]+?) and (?P<moves>[\w ]+?)\."
)


def heard_and_seen(text: str, clip: Watched) -> dict[str, float]:
    """Numbers of one answer: format, tone, and the shares of colours, things and facts of things that it has right."""
    said = [match.groupdict() for match in SENTENCE.finditer(text)]
    shape = r"<context>.+</context><think>.+</think><answer>[A-D]</answer>"
    colors = Counter(thing.color for thing in clip.things) & Counter(one["color"] for one in said)
    names = Counter((one["color"], one["category"]) for one in said)
    things = Counter((thing.color, thing.category) for thing in clip.things) & names
    right = 0
    for thing in clip.things:
        same = [one for one in said if (one["color"], one["category"]) == (thing.color, thing.category)]
        facts = (thing.size, PLACES[thing.position], MOVES[thing.motion])
        right += max((sum(map(str.__eq__, facts, (o["size"], o["place"], o["moves"]))) for o in same), default=0)
    return {
        "format": float(bool(re.fullmatch(shape, text))), "tone": float(f"A {clip.tone} tone" in text),
        "color_recall": colors.total() / len(clip.things), "object_recall": things.total() / len(clip.things),
        "attribute_recall": right / 3 / len(clip.things),
        "object_precision": things.total() / len(said) if said else 0.0,
    }  # fmt: skip


@torch.no_grad()
def held_out_quality(watching: Watching, batch: int = 32) -> dict[str, float]:
    """Mean numbers of answers to questions about clips that were not trained on."""
    rng, rows = np.random.default_rng(9), []
    tokenizer = watching.processor.tokenizer
    for start in range(0, len(watching.clips), batch):
        picked = np.arange(start, min(start + batch, len(watching.clips)))
        pairs = [(talk(watching.clips[index], rng)[0], "") for index in picked]
        inputs = left_padded(watching.inputs(picked, pairs)[0], tokenizer)
        out = watching.model.generate(
            pixel_values_videos=watching.pixels(picked), **inputs, max_new_tokens=90, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        rows += [heard_and_seen(text, watching.clips[index]) for text, index in zip(texts, picked, strict=True)]
    return {name: float(f"{sum(row[name] for row in rows) / len(rows):.4g}") for name in rows[0]}


def left_padded(inputs: dict, tokenizer) -> dict:
    """Prompts moved to the right end, for `generate`; the end token of the empty answer is cut off."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    moved, there = torch.full_like(ids, tokenizer.pad_token_id), torch.zeros_like(mask)
    for row, count in enumerate(mask.sum(1).tolist()):
        moved[row, ids.shape[1] - count + 1 :] = ids[row, : count - 1]
        there[row, ids.shape[1] - count + 1 :] = 1
    return {**inputs, "input_ids": moved[:, 1:], "attention_mask": there[:, 1:]}
