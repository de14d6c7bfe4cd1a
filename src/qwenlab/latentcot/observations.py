"""What a reflector says about a draft, between `<observation>` and `</observation>`: one wrong cell and its repair.

    all right
    top left wrong colour : draw red circle
    top left wrong shape : draw red circle
    top left missing : draw red circle
    top left extra : draw nothing

Words stand apart by single spaces, so that a small tokenizer has one token a word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qwenlab.core.scenes import EMPTY, WORLD, Repair, Scene, World, defect_kind, repair_text

ALL_RIGHT = "all right"
_WORDS = {
    "colour": "wrong colour",
    "shape": "wrong shape",
    "both": "wrong shape",
    "missing": "missing",
    "extra": "extra",
}
_KINDS = {"wrong colour": "colour", "wrong shape": "shape", "missing": "missing", "extra": "extra"}


@dataclass(frozen=True)
class Observation:
    """What is wrong (None: nothing) and, if something is, the repair."""

    kind: str | None
    repair: Repair | None

    @property
    def right(self) -> bool:
        return self.kind is None


def observation(drawn: Sequence[int], target: Scene, world: World = WORLD) -> str:
    """The right observation: the first cell that differs, or `ALL_RIGHT`."""
    for cell, (have, want) in enumerate(zip(drawn, target, strict=True)):
        if (kind := defect_kind(want, int(have), world)) is not None:
            item = "nothing" if want == EMPTY else world.name(want)
            return f"{world.place(cell)} {_WORDS[kind]} : draw {item}"
    return ALL_RIGHT


def parse_observation(text: str, world: World = WORLD) -> Observation | None:
    """Read an observation; None when it is empty or says anything else (the draft is then kept)."""
    text = " ".join(text.lower().split()).strip(" .")
    if text == ALL_RIGHT:
        return Observation(None, None)
    places = "|".join(map(re.escape, world.places()))
    match = re.fullmatch(f"({places}) ({'|'.join(_KINDS)}) ?: draw (.+)", text)
    if match is None:
        return None
    cell, kind = world.places().index(match[1]), _KINDS[match[2]]
    names = {world.name(item): item for item in range(1, world.items)} | {"nothing": EMPTY}
    item = names.get(match[3])
    if item is None or (item == EMPTY) != (kind == "extra"):  # "missing : draw nothing" is no repair
        return None
    return Observation(kind, Repair(cell, item, EMPTY if kind == "missing" else None))


def refine_prompt(seen: Observation, world: World = WORLD) -> str | None:
    """The instruction for the editing model; None when there is nothing to repair."""
    return None if seen.repair is None else repair_text(seen.repair, world)
