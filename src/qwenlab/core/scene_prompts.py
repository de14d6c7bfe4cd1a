"""Prompts in words for scenes, in the manner of GenEval: one object, two objects, colours, positions, counting.

Each prompt determines its target scene, so that a checker can say right or wrong:

    one       "a red circle at the top left"
    two       "a red circle at the top left and a blue square at the bottom right"
    colours   "a red circle at the top left and a blue circle at the top right" (one shape, two colours)
    position  "a red circle left of a blue square, at the bottom" (in 2x2 cells; also above)
    counting  "three red circles, none at the top left"
    full      the whole scene, as `describe` writes it

`read_prompt` is the inverse. GenEval: Ghosh et al. 2023 (arXiv 2310.11513).
"""

import re
from dataclasses import dataclass

import numpy as np

from qwenlab.core.scenes import EMPTY, WORLD, Scene, World, describe, held_out, random_scene, read_description

KINDS = ("one", "two", "colours", "position", "counting", "full")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Prompt:
    """What is asked for: the words, the kind and the one scene that is right."""

    text: str
    kind: str
    target: Scene


def _at(world: World, item: int, cell: int) -> str:
    return f"a {world.name(item)} at the {world.place(cell)}"


def _scene(world: World, where: dict[int, int]) -> Scene:
    return tuple(where.get(cell, EMPTY) for cell in range(world.cells))


def random_prompt(kind: str, rng: np.random.Generator, world: World = WORLD) -> Prompt:
    """A random prompt of a kind.

    Raises:
        ValueError: on an unknown kind, or a position in a grid that is not 2x2.
    """
    if kind == "full":
        scene = random_scene(rng, world)
        return Prompt(describe(scene, world), kind, scene)
    first, second = (int(item) for item in rng.integers(1, world.items, 2))
    if kind == "one":
        cell = int(rng.integers(world.cells))
        return Prompt(_at(world, first, cell), kind, _scene(world, {cell: first}))
    if kind in ("two", "colours"):
        if kind == "colours":
            shape = str(rng.choice(world.shapes))
            colours = rng.choice(world.colours, 2, replace=False)
            first, second = (world.item(str(c), shape) for c in colours)
        a, b = (int(c) for c in rng.choice(world.cells, 2, replace=False))
        text = f"{_at(world, first, a)} and {_at(world, second, b)}"
        return Prompt(text, kind, _scene(world, {a: first, b: second}))
    if kind == "position":
        if (world.rows, world.columns) != (2, 2):
            raise ValueError("position prompts need 2x2 cells.")
        side, beside = int(rng.integers(2)), bool(rng.integers(2))
        relation, place = ("left of", ("top", "bottom")[side]) if beside else ("above", ("left", "right")[side])
        a, b = (2 * side, 2 * side + 1) if beside else (side, side + 2)
        text = f"a {world.name(first)} {relation} a {world.name(second)}, at the {place}"
        return Prompt(text, kind, _scene(world, {a: first, b: second}))
    if kind == "counting":
        count = int(rng.integers(2, world.cells + 1))
        chosen = sorted(int(c) for c in rng.choice(world.cells, count, replace=False))
        without = [world.place(c) for c in range(world.cells) if c not in chosen]
        none = f", none at the {' and the '.join(without)}" if without else ""
        text = f"{_NUMBERS[count]} {world.name(first)}s{none}"
        return Prompt(text, kind, _scene(world, dict.fromkeys(chosen, first)))
    raise ValueError(f"there is no kind {kind!r}; expected one of {KINDS}.")


def read_prompt(text: str, world: World = WORLD) -> Prompt | None:
    """The prompt that `text` is, in any case and spacing; None when it is not in this language."""
    text = " ".join(text.lower().split()).strip(" .")
    if (scene := read_description(text, world)) is not None:
        return Prompt(text, "full", scene)
    thing = f"({'|'.join(world.colours)}) ({'|'.join(world.shapes)})"
    places = "|".join(map(re.escape, world.places()))
    if m := re.fullmatch(f"an? {thing} at the ({places})", text):
        return Prompt(text, "one", _scene(world, {world.places().index(m[3]): world.item(m[1], m[2])}))
    if m := re.fullmatch(f"an? {thing} at the ({places}) and an? {thing} at the ({places})", text):
        cells = [world.places().index(place) for place in (m[3], m[6])]
        if cells[0] == cells[1]:
            return None
        where = {cells[0]: world.item(m[1], m[2]), cells[1]: world.item(m[4], m[5])}
        kind = "colours" if m[2] == m[5] and m[1] != m[4] else "two"
        return Prompt(text, kind, _scene(world, where))
    if (world.rows, world.columns) == (2, 2) and (
        m := re.fullmatch(f"an? {thing} (left of|above) an? {thing}, at the (top|bottom|left|right)", text)
    ):
        beside, side = m[3] == "left of", int(m[6] in ("bottom", "right"))
        if beside != (m[6] in ("top", "bottom")):
            return None
        a, b = (2 * side, 2 * side + 1) if beside else (side, side + 2)
        return Prompt(text, "position", _scene(world, {a: world.item(m[1], m[2]), b: world.item(m[4], m[5])}))
    if m := re.fullmatch(f"({'|'.join(_NUMBERS)}) {thing}s(?:, none at the (.+))?", text):
        names = m[4].split(" and the ") if m[4] else []
        if len(set(names)) != len(names) or not set(names) <= set(world.places()):
            return None
        chosen = [c for c in range(world.cells) if world.place(c) not in names]
        if len(chosen) != _NUMBERS.index(m[1]) or len(chosen) < 2:
            return None
        return Prompt(text, "counting", _scene(world, dict.fromkeys(chosen, world.item(m[2], m[3]))))
    return None


def held_out_prompts(count: int, seed: int, world: World = WORLD, kinds: tuple[str, ...] = KINDS) -> list[Prompt]:
    """`count` prompts, kinds in turn, whose target scenes no training saw (`held_out`)."""
    rng = np.random.default_rng(seed)
    found: list[Prompt] = []
    while len(found) < count:
        prompt = random_prompt(kinds[len(found) % len(kinds)], rng, world)
        if held_out(prompt.target):
            found.append(prompt)
    return found
