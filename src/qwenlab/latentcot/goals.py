"""Goals in words: direct ones name every cell, chained ones name a cell by how it differs from the one before.

    direct    red circle, no shape, blue square, green triangle
    chained   red circle, no shape, opposite next, back next

A chained word refers to the last filled cell before: `same`, `next` and `back` walk along the list of colours (or
shapes) in a circle, `opposite` is two further. Who writes a chained goal out resolves it word by word; who has to
compare a drawing with it at once needs as many serial steps as the chain is long. Every cell has two words, always.
"""

from collections.abc import Sequence

import numpy as np

from qwenlab.core.scenes import EMPTY, WORLD, World

_COLOUR_STEPS = {0: "same", 1: "next", 2: "opposite", 3: "back"}
_SHAPE_STEPS = {0: "same", 1: "next", 2: "back"}
WORDS = ("same", "next", "opposite", "back")


def chained(scene: Sequence[int], named: np.ndarray, world: World = WORLD) -> tuple[str, list[int]]:
    """A goal with references, and the number of links that each cell's answer hangs on (0: named outright).

    Args:
        scene: the target, an item a cell.
        named: `[cells, 2]` bool: whether a cell's colour and shape are named outright. The first filled cell always
            is.

    Raises:
        ValueError: when the world has not 4 colours and 3 shapes, for which the words are made.
    """
    if (len(world.colours), len(world.shapes)) != (4, 3):
        raise ValueError("chained goals have words for 4 colours and 3 shapes.")
    parts, depths = [], []
    before: tuple[int, int] | None = None
    links = [0, 0]
    for item, (colour_named, shape_named) in zip(scene, named, strict=True):
        if item == EMPTY:
            parts.append(world.name(EMPTY))
            depths.append(0)
            continue
        colour, shape = divmod(int(item) - 1, 3)
        words = list(world.parts(int(item)))
        for axis, (value, kept, steps, size) in enumerate(
            ((colour, colour_named, _COLOUR_STEPS, 4), (shape, shape_named, _SHAPE_STEPS, 3))
        ):
            if before is None or kept:
                links[axis] = 0
            else:
                words[axis] = steps[(value - before[axis]) % size]
                links[axis] += 1
        before = (colour, shape)
        parts.append(" ".join(words))
        depths.append(max(links))
    return ", ".join(parts), depths


def resolve(text: str, world: World = WORLD) -> tuple[int, ...] | None:
    """The scene that a direct or chained goal names; None when it names none."""
    colours = {word: step for step, word in _COLOUR_STEPS.items()}
    shapes = {word: step for step, word in _SHAPE_STEPS.items()}
    found: list[int] = []
    before: tuple[int, int] | None = None
    for part in text.strip().rstrip(".").split(","):
        words = part.lower().split()
        if words == world.name(EMPTY).split():
            found.append(EMPTY)
            continue
        if len(words) != 2:
            return None
        values = []
        for axis, (word, names, steps) in enumerate(
            zip(words, (world.colours, world.shapes), (colours, shapes), strict=True)
        ):
            if word in names:
                values.append(names.index(word))
            elif word in steps and before is not None:
                values.append((before[axis] + steps[word]) % len(names))
            else:
                return None
        before = (values[0], values[1])
        found.append(world.item(world.colours[values[0]], world.shapes[values[1]]))
    return tuple(found) if len(found) == world.cells else None
