"""What the vision-language stand-in learns from: chats about drawn scenes, made on the fly.

Six skills, none of which is what the system latentcot trains (observations in tags, latents, chained goals checked
at once): saying what is drawn, writing a chained goal out, comparing a drawing with a goal or with a second drawing
cell by cell, and naming the first repair.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from qwenlab.core.scene_images import compose, random_variants
from qwenlab.core.scene_noise import corrupt
from qwenlab.core.scenes import DEFECTS, WORLD, defect, defect_kind, describe, held_out, random_scenes
from qwenlab.latentcot.goals import chained
from qwenlab.latentcot.observations import observation

SYSTEM = "Check drawings."
ASK_CAPTION = "what is drawn ?"
ASK_CELLS = "check each cell"
ASK_FIX = "what to change ?"
ASK_GOAL = "write it out"
VERDICTS = {None: "right", "colour": "colour", "shape": "shape", "both": "both", "missing": "missing", "extra": "extra"}
CORRUPTIONS = ("none", "none", "noise_10", "blur_1", "tint_10", "shift_1", "blur_1_noise_10_tint_10")
TASKS = ("caption", "goal", "cells", "cells_images", "fix", "fix_images")


@dataclass(frozen=True)
class Chat:
    """A user's turn with the scenes of its pictures, and the answer."""

    images: tuple[tuple[int, ...], ...]
    text: str
    answer: str


class Scenes:
    """Draws targets that are not held out (or only held-out ones), and drafts of them."""

    def __init__(self, seed: int, held: bool = False, right: float = 0.15):
        self.rng, self.held, self.right = np.random.default_rng(seed), held, right

    def target(self) -> tuple[int, ...]:
        """One target; a quarter of the cells are empty."""
        while True:
            scene = tuple(random_scenes(1, self.rng)[0].tolist())
            if held_out(scene) == self.held:
                return scene

    def draft(self, target: tuple[int, ...], twice: float = 0.15) -> tuple[int, ...]:
        """A drawing of `target` with one defect, sometimes none (a share of `right`) or two."""
        if self.rng.random() < self.right:
            return target
        drawn = target
        for _ in range(2 if self.rng.random() < twice else 1):
            found = None
            while found is None:
                found = defect(drawn, str(self.rng.choice(DEFECTS)), self.rng)
            drawn = found[0]
        return drawn

    def chat(self, task: str) -> Chat:
        """One sample of a task."""
        target = self.target()
        if task == "caption":
            return Chat((target,), ASK_CAPTION, describe(target))
        if task == "goal":
            goal, _ = chained(target, self.rng.random((WORLD.cells, 2)) < 0.3)
            return Chat((), f"goal : {goal} {ASK_GOAL}", describe(target))
        drawn = self.draft(target)
        both = (drawn, target) if task.endswith("images") else (drawn,)
        goal = "" if task.endswith("images") else f"goal : {describe(target)} "
        if task.startswith("cells"):
            verdicts = [VERDICTS[defect_kind(want, have)] for want, have in zip(target, drawn, strict=True)]
            return Chat(both, goal + ASK_CELLS, " ".join(verdicts))
        return Chat(both, goal + ASK_FIX, observation(drawn, target))


def texts(seed: int, count: int = 400) -> list[str]:
    """Texts of all kinds, for the tokenizer."""
    scenes = Scenes(seed)
    chats = [scenes.chat(task) for _ in range(count // len(TASKS)) for task in TASKS]
    return [f"system\n{SYSTEM}\nuser\n{chat.text}\nassistant\n{chat.answer}" for chat in chats]


def pictures(scenes: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Drawings `[N, size, size, 3]` uint8 as a generator might leave them: in variants, a little spoilt."""
    images = compose(scenes, random_variants(scenes, rng), size)
    chosen = rng.integers(len(CORRUPTIONS), size=len(images))
    for index, name in enumerate(CORRUPTIONS):
        if name != "none" and (chosen == index).any():
            images[chosen == index] = corrupt(images[chosen == index], name, rng)
    return images


class Batches:
    """Chats as tensors for `Qwen2_5_VLForConditionalGeneration`, padded on the right; labels on answers only.

    Args:
        positions: `(mm_token_type_ids [1, S], number of images) -> position_ids [3, 1, S]`; few patterns occur, so
            they are kept.
    """

    def __init__(self, tokenizer, positions: Callable[[torch.Tensor, int], torch.Tensor]):
        self.tokenizer, self.positions = tokenizer, positions
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.known: dict[bytes, torch.Tensor] = {}

    def text(self, chat: Chat) -> tuple[str, str]:
        """What the chat template makes of it: the turns before the answer, and the answer."""
        pads = "<|image_pad|>" * WORLD.cells
        pictures_ = f"<|vision_start|>{pads}<|vision_end|>" * len(chat.images)
        head = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{pictures_}{chat.text}<|im_end|>\n"
        return f"{head}<|im_start|>assistant\n", f"{chat.answer}<|im_end|>"

    def __call__(self, chats: list[Chat]) -> dict[str, torch.Tensor]:
        """input_ids, labels `[B, S]`, position_ids `[3, B, S]`, attention_mask `[B, S]`."""
        pairs = [self.text(chat) for chat in chats]
        heads = self.tokenizer([head for head, _ in pairs])["input_ids"]
        answers = self.tokenizer([answer for _, answer in pairs])["input_ids"]
        width = max(len(h) + len(a) for h, a in zip(heads, answers, strict=True))
        ids = torch.full((len(chats), width), self.tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        positions = torch.zeros(3, len(chats), width, dtype=torch.long)
        for row, (head, answer, chat) in enumerate(zip(heads, answers, chats, strict=True)):
            whole = torch.tensor(head + answer)
            ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
            labels[row, len(head) : len(whole)] = whole[len(head) :]
            kinds = (whole == self.image).long()
            key = kinds.numpy().tobytes()
            if key not in self.known:
                self.known[key] = self.positions(kinds[None], len(chat.images))[:, 0]
            positions[:, row, : len(whole)] = self.known[key]
        return {"input_ids": ids, "labels": labels, "attention_mask": mask, "position_ids": positions}
