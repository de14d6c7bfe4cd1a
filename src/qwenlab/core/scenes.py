"""A small world of coloured shapes in a grid of cells: exact text, exact target, exact defects and repairs.

    scene = random_scene(WORLD, rng)
    describe(scene)                       # "red circle, no shape, blue square, green triangle"
    drawn, repair = defect(scene, "colour", rng)
    repair_text(repair, WORLD)            # "change the top left shape to a red circle"

Everything is determined: a text names one scene, a wrong picture has one right repair. Pictures are in
`scene_images`, the checker that reads them back in `scene_checker`, and prompts in words in `scene_prompts`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwenlab.core.errors import UserError

EMPTY = 0  # the item of a cell without a shape
DEFECTS = ("colour", "shape", "missing", "extra")


@dataclass(frozen=True)
class World:
    """Which shapes there are and how many cells a picture has.

    Item 0 is the empty cell, item `1 + colour * len(shapes) + shape` a shape.
    """

    colours: tuple[str, ...] = ("red", "green", "blue", "yellow")
    shapes: tuple[str, ...] = ("circle", "square", "triangle")
    rows: int = 2
    columns: int = 2

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @property
    def items(self) -> int:
        """Number of things a cell can hold, the empty cell included."""
        return 1 + len(self.colours) * len(self.shapes)

    def item(self, colour: str, shape: str) -> int:
        return 1 + self.colours.index(colour) * len(self.shapes) + self.shapes.index(shape)

    def parts(self, item: int) -> tuple[str, str]:
        """Colour and shape of an item that is not empty."""
        return self.colours[(item - 1) // len(self.shapes)], self.shapes[(item - 1) % len(self.shapes)]

    def name(self, item: int) -> str:
        """Two words, always: "red circle", or "no shape" for the empty cell."""
        return "no shape" if item == EMPTY else " ".join(self.parts(item))

    def place(self, cell: int) -> str:
        """Where a cell is: "top left" in a grid of 2x2, "row 1 column 3" in a larger one."""
        row, column = divmod(cell, self.columns)
        if (self.rows, self.columns) == (2, 2):
            return f"{('top', 'bottom')[row]} {('left', 'right')[column]}"
        return f"row {row + 1} column {column + 1}"

    def places(self) -> tuple[str, ...]:
        return tuple(self.place(cell) for cell in range(self.cells))


WORLD = World()
Scene = tuple[int, ...]  # the item of every cell, row by row


@dataclass(frozen=True)
class Repair:
    """Put `item` into `cell`; `was` is what is drawn there, where that is known (it chooses the verb)."""

    cell: int
    item: int
    was: int | None = None


def describe(scene: Scene, world: World = WORLD) -> str:
    """The scene in words, two a cell, cells row by row: a fixed format is what tiny models learn."""
    return ", ".join(world.name(item) for item in scene)


def read_description(text: str, world: World = WORLD) -> Scene | None:
    """The scene that `describe` would write so, or None."""
    names = {world.name(item): item for item in range(world.items)}
    found = [names.get(" ".join(part.split()).lower()) for part in text.strip().rstrip(".").split(",")]
    return tuple(i for i in found if i is not None) if len(found) == world.cells and None not in found else None


def random_scene(rng: np.random.Generator, world: World = WORLD, filled: float = 0.75) -> Scene:
    """Every cell holds a uniform random shape with probability `filled`, on its own."""
    return tuple(random_scenes(1, rng, world, filled)[0].tolist())


def random_scenes(count: int, rng: np.random.Generator, world: World = WORLD, filled: float = 0.75) -> np.ndarray:
    """`count` scenes at once, `[count, cells]` int64: training data without a loop."""
    items = rng.integers(1, world.items, (count, world.cells))
    return np.where(rng.random(items.shape) < filled, items, EMPTY)


def held_out(scene: Sequence[int], every: int = 5) -> bool:
    """Whether a scene is kept from all training: one of `every`, by the hash of what it shows, on any machine."""
    digest = hashlib.sha256(",".join(str(int(item)) for item in scene).encode()).digest()
    return int.from_bytes(digest[:4], "big") % every == 0


def possible_defects(scene: Scene, world: World = WORLD) -> list[tuple[str, int]]:
    """(kind, cell) of every defect a picture of `scene` can have."""
    kinds = [k for k in ("colour", "shape") if len(getattr(world, f"{k}s")) > 1]
    return [
        (kind, cell)
        for cell, item in enumerate(scene)
        for kind in (["extra"] if item == EMPTY else [*kinds, "missing"])
    ]


def defect(scene: Scene, kind: str, rng: np.random.Generator, world: World = WORLD) -> tuple[Scene, Repair] | None:
    """The scene with one defect of a kind, and the repair that undoes it; None where it cannot have that kind.

    Raises:
        ValueError: on an unknown kind.
    """
    if kind not in DEFECTS:
        raise ValueError(f"there is no defect {kind!r}; expected one of {DEFECTS}.")
    cells = [cell for k, cell in possible_defects(scene, world) if k == kind]
    if not cells:
        return None
    cell = int(rng.choice(cells))
    right = scene[cell]
    if kind == "missing":
        drawn = EMPTY
    elif kind == "extra":
        drawn = int(rng.integers(1, world.items))
    else:
        colour, shape = world.parts(right)
        if kind == "colour":
            colour = str(rng.choice([c for c in world.colours if c != colour]))
        else:
            shape = str(rng.choice([s for s in world.shapes if s != shape]))
        drawn = world.item(colour, shape)
    return apply(scene, Repair(cell, drawn)), Repair(cell, right, drawn)


def defect_kind(target: int, drawn: int, world: World = WORLD) -> str | None:
    """What is wrong with a cell; None when nothing is. Colour and shape both wrong counts as "both"."""
    if target == drawn:
        return None
    if EMPTY in (target, drawn):
        return "extra" if target == EMPTY else "missing"
    (colour, shape), (drawn_colour, drawn_shape) = world.parts(target), world.parts(drawn)
    return (
        "both" if colour != drawn_colour and shape != drawn_shape else "colour" if colour != drawn_colour else "shape"
    )


def repairs(target: Scene, drawn: Sequence[int]) -> list[Repair]:
    """Everything to change in what is drawn to reach the target, cells in order."""
    pairs = zip(target, drawn, strict=True)
    return [Repair(cell, want, int(have)) for cell, (want, have) in enumerate(pairs) if want != have]


def apply(scene: Scene, repair: Repair) -> Scene:
    """The scene after a repair."""
    return tuple(repair.item if cell == repair.cell else item for cell, item in enumerate(scene))


NOTHING = "nothing to change"


def repair_text(repair: Repair, world: World = WORLD) -> str:
    """The repair as an instruction, such as "change the top left shape to a red circle"."""
    place = world.place(repair.cell)
    if repair.item == EMPTY:
        return f"remove the {place} shape"
    if repair.was == EMPTY:
        return f"add a {world.name(repair.item)} at the {place}"
    return f"change the {place} shape to a {world.name(repair.item)}"


def read_repairs(text: str, world: World = WORLD) -> list[Repair] | None:
    """Repairs written in `text` ("; " between them), [] for "nothing to change", None when it says anything else.

    `was` is EMPTY after "add" and unknown (None) otherwise.
    """
    text = " ".join(text.lower().split()).strip(" .")
    if text == NOTHING:
        return []
    place = f"(?P<place>{'|'.join(map(re.escape, world.places()))})"
    item = f"(?P<colour>{'|'.join(map(re.escape, world.colours))}) (?P<shape>{'|'.join(map(re.escape, world.shapes))})"
    forms = [f"remove the {place} shape", f"add an? {item} at the {place}", f"change the {place} shape to an? {item}"]
    found: list[Repair] = []
    for part in text.split(";"):
        match = next((m for form in forms if (m := re.fullmatch(form, part.strip(" .")))), None)
        if match is None:
            return None
        words = match.groupdict()
        one = Repair(world.places().index(words["place"]), EMPTY)
        if words.get("colour"):
            was = EMPTY if match.group().startswith("add") else None
            one = replace(one, item=world.item(words["colour"], words["shape"]), was=was)
        found.append(one)
    cells = [one.cell for one in found]
    return found if len(set(cells)) == len(cells) else None  # two orders for one cell contradict each other


def check_scene(scene: Sequence[int], world: World = WORLD) -> Scene:
    """`scene` as a tuple of ints.

    Raises:
        UserError: when it has the wrong number of cells or an unknown item.
    """
    items = tuple(int(item) for item in scene)
    if len(items) != world.cells or not all(0 <= item < world.items for item in items):
        raise UserError(f"scene {items}: expected {world.cells} items from 0 to {world.items - 1}.")
    return items
