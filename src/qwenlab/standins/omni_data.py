"""What the omni stand-in watches: procedural clips as patches and log-mel frames, questions, and what to say of them.

Its pictures stand over other photos than the clips of the pipeline, and come from another seed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from qwenlab.thinkseg.clips import Clip, Thing, make_clip
from qwenlab.thinkseg.drawing import SIZE, load_photos
from qwenlab.thinkseg.omni_prompt import FORMAT, OPENING, SILENT, chat_text
from qwenlab.thinkseg.questions import EMOTIONS, MOVES, PLACES, ask
from qwenlab.thinkseg.scripted import plain
from qwenlab.thinkseg.vocabulary import COLORS, MOTIONS, SHAPES, SIZES, SOURCES, TONES

STEP = 4  # clip frames between two frames that it sees: 2 a second
HEADS = {"color": COLORS, "category": SHAPES, "size": SIZES, "motion": MOTIONS}  # of the dense warm-up; 0 is nothing


@dataclass(frozen=True)
class Watched:
    """One clip as it is seen: frames uint8 `[6, 64, 64, 3]`, labels of cells `[4, 3, cells]` and of the four patches
    of each, `[4, 3, 4 * cells]` (see `dense_labels`)."""

    frames: np.ndarray
    sound: np.ndarray
    labels: np.ndarray
    fine: np.ndarray
    things: tuple[Thing, ...]
    tone: str


def in_order(clip: Clip) -> tuple[Thing, ...]:
    """The things from left to right in the first frame: an order that can be seen, and so learned."""
    centers = []
    for mask in clip.masks[0].transpose(0, 1, 2):
        columns = np.nonzero(mask)[1]
        centers.append(columns.mean() if len(columns) else SIZE)
    return tuple(clip.things[index] for index in np.argsort(centers, kind="stable"))


def dense_labels(clip: Clip, cell: int) -> np.ndarray:
    """int64 `[4, T/2, cells]`: what fills each cell of a temporal patch most - colour, shape, size, motion; 0: nothing.

    Args:
        cell: side of what one token sees, in pixels.
    """
    seen = clip.masks[::STEP]  # [6, N, H, W]
    pairs = seen[0::2].astype(np.int64) + seen[1::2]
    side = SIZE // cell
    filled = pairs.reshape(len(pairs), pairs.shape[1], side, cell, side, cell).sum((3, 5))  # [3, N, side, side]
    best, most = filled.argmax(1), filled.max(1)
    names = [[1 + words.index(getattr(thing, head)) for thing in clip.things] for head, words in HEADS.items()]
    labels = np.array(names)[:, best] * (most >= 0.08 * 2 * cell * cell)
    return labels.reshape(len(HEADS), len(pairs), side * side)


def watch(source: str, seed: int, index: int, photos: dict[str, np.ndarray], cell: int) -> Watched:
    """One clip, drawn and reduced to what the model sees and hears."""
    clip = make_clip(source, seed, index, photos)
    fine = dense_labels(clip, cell // 2)
    return Watched(clip.frames[::STEP], clip.sound, dense_labels(clip, cell), fine, in_order(clip), clip.tone)


def mirrored(clip: Watched) -> Watched:
    """The same clip with left and right exchanged, in pictures and in words."""
    other = {"left": "right", "right": "left"}
    things = tuple(
        replace(thing, motion=other.get(thing.motion, thing.motion), position=other.get(thing.position, thing.position))
        for thing in reversed(clip.things)
    )
    motion, names = list(HEADS).index("motion"), ["", *MOTIONS]
    turned = np.array([names.index(other.get(name, name)) for name in names])

    def flipped(labels: np.ndarray) -> np.ndarray:
        side = int(labels.shape[-1] ** 0.5)
        labels = labels.reshape(*labels.shape[:2], side, side)[..., ::-1].reshape(labels.shape)
        return np.concatenate([labels[:motion], turned[labels[motion]][None], labels[motion + 1 :]])

    return Watched(clip.frames[:, :, ::-1], clip.sound, flipped(clip.labels), flipped(clip.fine), things, clip.tone)


def watch_many(count: int, seed: int, assets: str | Path, photos: list[str], cell: int) -> list[Watched]:
    """`count` clips of all sources alike."""
    loaded = load_photos(assets, photos)
    return [watch(SOURCES[i % len(SOURCES)], seed, i // len(SOURCES), loaded, cell) for i in range(count)]


def talk(clip: Watched, rng: np.random.Generator) -> tuple[str, str]:
    """(prompt, answer) of a new question about a clip."""
    question, asked = ask(clip.things, clip.tone, rng)
    return chat_text(question.text, question.options, True), plain(clip.things, clip.tone, question, asked)


def phrase_tokens() -> list[str]:
    """Boilerplate and fixed phrases, a token each: a tiny model learns facts, not how sentences go on."""
    boilerplate = [
        "You are a helpful assistant.", OPENING, SILENT, FORMAT, "<context>", "</context>", "<think>", "</think>",
        "<answer>", "</answer>", " tone plays.", "The question is about the", "Therefore the answer is", " Options:",
        " tone feels",
    ]  # fmt: skip
    places = [f" starts {place}" for place in PLACES.values()]
    return [*boilerplate, *places, *(f" and {move}." for move in MOVES.values()), *(f" {m}" for m in MOVES.values())]


def content_words() -> list[str]:
    """What a sentence is about: these tokens weigh more in the loss."""
    words = [*COLORS, *SHAPES, *SIZES, *TONES, *EMOTIONS.values(), *MOTIONS, "top", "bottom", "center"]
    return [f" {word}" for word in dict.fromkeys(words)]


def patches(frames: torch.Tensor, patch: int, mean: list[float], std: list[float]) -> torch.Tensor:
    """uint8 `[B, T, H, W, 3]` -> `[B * T/2 * H/p * W/p, 3 * 2 * p * p]`, as the video processor lays them out."""
    batch, count, height, width, _ = frames.shape
    pixels = (frames.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    grid_h, grid_w = height // patch, width // patch
    parts = pixels.permute(0, 1, 4, 2, 3).reshape(
        batch, count // 2, 2, 3, grid_h // 2, 2, patch, grid_w // 2, 2, patch
    )  # fmt: skip
    return parts.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(batch * count // 2 * grid_h * grid_w, -1)
