"""Procedural clips of moving coloured shapes with a tone, and everything true about them: tracks, masks, words.

They stand for the seed's three data sets where none can be had. `drift`: up to three things on straight paths.
`crossing`: the first two meet half way and one hides the other; a tenth of them holds twins (same colour and shape).
`crowd`: three or four things. A clip is a function of its source, seed and index, and of nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json, safe_name, write_text
from qwenlab.thinkseg import rle
from qwenlab.thinkseg.drawing import RADII, SIZE, Shape, background, color_near, draw
from qwenlab.thinkseg.video import write_video
from qwenlab.thinkseg.vocabulary import COLORS, MOTIONS, SHAPES, SIZES, SOURCES, TONES, phrase

FRAMES, FPS, RATE = 24, 8, 16000  # frames, frames a second, sound samples a second
TWINS = 0.1  # share of crossings whose two things have the same phrase
_STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_HERTZ = {"low": (300, 300), "high": (1200, 1200), "rising": (300, 1200), "falling": (1200, 300)}  # first, last


@dataclass(frozen=True)
class Thing:
    """A thing in words (vocabulary.py): how it looks, how it moves, and where it is in the first frame."""

    category: str
    color: str
    size: str
    motion: str
    position: str

    @property
    def phrase(self) -> str:
        return phrase(self.color, self.category)


@dataclass(frozen=True, eq=False)
class Clip:
    """frames uint8 `[T, 64, 64, 3]`; masks bool `[T, N, 64, 64]`, visible pixels; sound float32 `[S]`, mono, -1..1."""

    clip_id: str
    source: str
    things: tuple[Thing, ...]
    tone: str
    background: str
    frames: np.ndarray
    masks: np.ndarray
    sound: np.ndarray
    fps: int = FPS


@dataclass(frozen=True, eq=False)
class Truth:
    """What a clip's JSON file says: words, and masks bool `[T, N, H, W]`."""

    things: tuple[Thing, ...]
    tone: str
    background: str
    masks: np.ndarray


@dataclass(frozen=True)
class _Path:
    """One thing on its way: radius, place in the first frame, step a frame (pixels)."""

    size: str
    motion: str
    radius: float
    start: np.ndarray
    step: np.ndarray

    def at(self, frame: int) -> np.ndarray:
        return self.start + frame * self.step


def tone_sound(tone: str, rng: np.random.Generator, seconds: float = FRAMES / FPS) -> np.ndarray:
    """A tone with a soft beginning and end and a little noise, float32 `[S]`."""
    count = round(seconds * RATE)
    first, last = _HERTZ[tone]
    hertz = np.linspace(first, last, count) * rng.uniform(0.93, 1.07)
    fade = np.clip(np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.02 * RATE), 0, 1)
    wave = 0.4 * fade * np.sin(2 * np.pi * np.cumsum(hertz) / RATE + rng.uniform(0, 6.28))
    return (wave + rng.normal(0, 0.004, count)).astype(np.float32)


def _position(start: np.ndarray) -> str:
    dx, dy = start - SIZE / 2
    if max(abs(dx), abs(dy)) <= SIZE / 6:
        return "center"
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "top" if dy < 0 else "bottom"


def _straight(rng: np.random.Generator, size: str, motion: str) -> _Path:
    """A path that stays inside the picture, at a speed of 0.8 to 1.6 pixels a frame as far as there is room."""
    radius = rng.uniform(*RADII[size])
    room = np.array([radius, SIZE - radius])
    speed = min(rng.uniform(0.8, 1.6), (room[1] - room[0]) / (FRAMES - 1))
    step = np.asarray(_STEP[motion], float) * speed
    travel = step * (FRAMES - 1)
    low, high = room[0] - np.minimum(travel, 0), room[1] - np.maximum(travel, 0)
    return _Path(size, motion, radius, rng.uniform(low, np.maximum(low, high)), step)


def _crossing(rng: np.random.Generator, sizes: tuple[str, str]) -> list[_Path]:
    """Two paths that meet in the middle of the clip: head on, or at a right angle."""
    first = MOTIONS[rng.integers(4)]
    turned = [motion for motion in MOTIONS[:4] if (_STEP[motion][0] == 0) != (_STEP[first][0] == 0)]
    second = _OPPOSITE[first] if rng.random() < 0.5 else turned[rng.integers(2)]
    radii = [rng.uniform(*RADII[size]) for size in sizes]
    reach = SIZE / 2 - max(radii)
    meet = SIZE / 2 + rng.uniform(-0.25, 0.25, 2) * reach
    paths = []
    for size, motion, radius in zip(sizes, (first, second), radii, strict=True):
        step = np.asarray(_STEP[motion], float) * 0.75 * reach / (FRAMES / 2)
        off = rng.uniform(-2, 2, 2) * (np.asarray(_STEP[motion]) == 0)  # not always centre on centre
        paths.append(_Path(size, motion, radius, meet + off - step * (FRAMES - 1) / 2, step))
    return paths


def _contact(paths: list[_Path], allowed: bool) -> float:
    """How far things reach into each other, worst over frames (pixels). The first two may, when `allowed`."""
    worst = 0.0
    for a, one in enumerate(paths):
        for b, other in enumerate(paths[:a]):
            # A relative path is straight: where it comes closest is known.
            gap, step = one.start - other.start, one.step - other.step
            time = 0.0 if not step.any() else float(np.clip(-(gap @ step) / (step @ step), 0, FRAMES - 1))
            distance = float(np.linalg.norm(gap if allowed and (b, a) == (0, 1) else gap + time * step))
            worst = max(worst, one.radius + other.radius - distance)
    return worst


def _paths(source: str, rng: np.random.Generator, sizes: list[str]) -> list[_Path]:
    """Paths of all things, the best of many draws: as little contact as possible where none is meant."""
    best, least = [], np.inf
    for _ in range(60):
        paths = _crossing(rng, (sizes[0], sizes[1])) if source == "crossing" else []
        paths += [_straight(rng, size, MOTIONS[rng.integers(5)]) for size in sizes[len(paths) :]]
        worst = _contact(paths, source == "crossing")
        if worst < least:
            best, least = paths, worst
        if least <= 1:
            break
    return best


def _looks(source: str, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Colour and shape of each thing; all differ, except the first two of some crossings."""
    pairs = rng.permutation(len(COLORS) * len(SHAPES))[:count]
    looks = [(COLORS[pair // len(SHAPES)], SHAPES[pair % len(SHAPES)]) for pair in pairs.tolist()]
    if source == "crossing" and rng.random() < TWINS:
        looks[1] = looks[0]
    return looks


def make_clip(source: str, seed: int, index: int, photos: Mapping[str, np.ndarray] | None = None) -> Clip:
    """One clip.

    Args:
        photos: by name, uint8 `[H, W, 3]` (`drawing.load_photos`): half of the backgrounds; without them, textures.

    Raises:
        UserError: on a source that there is not.
    """
    if source not in SOURCES:
        raise UserError(f"source {source!r} is unknown; expected one of {', '.join(SOURCES)}.")
    rng = np.random.default_rng([SOURCES.index(source), seed, index])
    low, high = {"drift": (1, 3), "crossing": (2, 3), "crowd": (3, 3)}[source]
    count = int(rng.integers(low, high + 1))
    count += source == "crowd" and rng.random() < 0.25
    looks = _looks(source, rng, count)
    sizes = [SIZES[rng.integers(2)] for _ in range(count)]
    if source == "crowd":
        sizes[1:] = ["small"] * (count - 1)
    if source == "crossing" and looks[0] == looks[1]:
        sizes[:2] = ["large", "small"] if rng.random() < 0.5 else ["small", "large"]
    paths = _paths(source, rng, sizes)
    name, picture = background(rng, photos or {}, 0.5)
    angles, colors = rng.uniform(-0.25, 0.25, count), [color_near(color, rng) for color, _ in looks]
    order = rng.permutation(count)  # later ones are in front
    frames = np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((FRAMES, count, SIZE, SIZE), bool)
    for frame in range(FRAMES):
        shapes = []
        for k in order:
            x, y = paths[k].at(frame)
            shapes.append(Shape(looks[k][1], x, y, paths[k].radius, angles[k], colors[k]))
        drawn, masks[frame, order] = draw(picture, shapes)
        frames[frame] = np.clip(drawn + rng.normal(0, 2.5, drawn.shape), 0, 255)
    things = tuple(
        Thing(shape, color, path.size, path.motion, _position(path.start))
        for (color, shape), path in zip(looks, paths, strict=True)
    )
    tone = TONES[rng.integers(len(TONES))]
    sound = tone_sound(tone, rng)
    # The most striking thing comes first: what moves, then what is large.
    by = sorted(range(count), key=lambda k: (things[k].motion == "still", things[k].size == "small", k))
    return Clip(f"{source}-{index:05d}", source, tuple(things[k] for k in by), tone, name, frames, masks[:, by], sound)


def write_clip(clip: Clip, folder: str | Path) -> Path:
    """Write `<clip_id>.mp4` with its sound and `<clip_id>.json` with the truth; returns the path of the video."""
    path = Path(folder) / f"{safe_name(clip.clip_id, 'clip id')}.mp4"
    write_video(path, clip.frames, clip.fps, crf=6, sound=clip.sound, rate=RATE)
    facts = {
        "clip_id": clip.clip_id,
        "source": clip.source,
        "things": [vars(thing) for thing in clip.things],
        "tone": clip.tone,
        "background": clip.background,
        "masks": [[rle.encode(mask) for mask in frame] for frame in clip.masks],
    }
    write_text(path.with_suffix(".json"), json.dumps(facts) + "\n")
    return path


def read_truth(folder: str | Path, clip_id: str) -> Truth:
    """What is true about a clip that `write_clip` wrote.

    Raises:
        UserError: when the file is missing or is none of that kind.
    """
    path = Path(folder) / f"{safe_name(clip_id, 'clip id')}.json"
    facts = read_json(path)
    try:
        things = tuple(Thing(**thing) for thing in facts["things"])
        masks = np.array([[rle.decode(mask) for mask in frame] for frame in facts["masks"]])
        return Truth(things, facts["tone"], facts["background"], masks)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: does not describe a clip ({error}).") from error
