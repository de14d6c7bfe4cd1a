"""Draw, reflect, refine: one turn of the loop, for any painter and reflector (seed 000, "生图 -> 反思 -> 再生图").

The reflector looks at the draft and the goal and writes an observation. A repair in it becomes an instruction; the
draft is edited by it, or drawn again with it in the prompt. An empty or unreadable observation keeps the draft, and
so does "all right": a loop must not spoil what it does not understand. For the same reason the reflector looks twice:
a refined picture that it does not accept is thrown away, and the draft stays.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from qwenlab.core.scene_checker import read_scene
from qwenlab.core.scenes import EMPTY, WORLD, describe, read_description
from qwenlab.latentcot.drawing import Painter
from qwenlab.latentcot.observations import observation, parse_observation, refine_prompt

Refine = Literal["edit", "redraw"]
EDIT_SEED = 7919  # added to a draft's seed: a refinement starts from noise of its own


class Reflector(Protocol):
    """Writes one observation a picture, without the tags; "" when it found no words."""

    def reflect(self, images: list[Image.Image], goals: list[str]) -> list[str]: ...


class HeuristicReflector:
    """No model: the checker reads the picture and names the first wrong cell.

    It needs a goal in the language of scenes and says nothing ("") to any other. In the loop's metrics it is the
    ceiling, for the checker also judges them.
    """

    def reflect(self, images: list[Image.Image], goals: list[str]) -> list[str]:
        """See `Reflector`."""
        found = []
        for image, goal in zip(images, goals, strict=True):
            target = read_description(goal)
            drawn = read_scene(np.asarray(image.convert("RGB")))
            found.append("" if target is None else observation(drawn, target, WORLD))
        return found


@dataclass(frozen=True)
class Refinement:
    """What became of a draft. Without an `instruction` nothing was to be done: `tried` and `image` are the draft."""

    observation: str
    instruction: str | None
    kept: str | None  # why the draft was kept: "all right", "unreadable", or "second look"
    tried: Image.Image  # what the painter made of the instruction
    image: Image.Image  # what the loop returns
    second: str | None = None  # what the reflector says of `tried`; None when it was not asked


def plan(text: str) -> tuple[str | None, str | None]:
    """(instruction, why the draft is kept) from an observation; one of them is None."""
    seen = parse_observation(text)
    if seen is None:
        return None, "unreadable"
    instruction = refine_prompt(seen)
    return (None, "all right") if instruction is None else (instruction, None)


def redraw_prompt(prompt: str, instruction: str) -> str:
    """The prompt of a redraw: the old one, and what to mind this time."""
    return f"{prompt.rstrip(' .')}; {instruction}"


def refine_all(
    painter: Painter, drafts: list[Image.Image], prompts: list[str], texts: list[str], seeds: list[int], how: Refine
) -> list[Refinement]:
    """Act on the observation of each draft."""
    plans = [plan(text) for text in texts]
    images = list(drafts)
    chosen = [i for i, (instruction, _) in enumerate(plans) if instruction is not None]
    if how == "redraw" and chosen:
        words = [redraw_prompt(prompts[i], str(plans[i][0])) for i in chosen]
        for i, image in zip(chosen, painter.draw(words, [seeds[i] + EDIT_SEED for i in chosen]), strict=True):
            images[i] = image
    else:
        for i in chosen:
            images[i] = painter.edit(drafts[i], str(plans[i][0]), seeds[i] + EDIT_SEED)
    return [
        Refinement(text, instruction, kept, image, image)
        for text, (instruction, kept), image in zip(texts, plans, images, strict=True)
    ]


def look_again(
    reflector: Reflector, drafts: list[Image.Image], goals: list[str], done: list[Refinement]
) -> list[Refinement]:
    """The reflector judges every refined picture; what it does not accept becomes the draft again.

    A second look costs what a look at a second draft costs, so best-of-2 is still the comparison at equal compute.
    """
    chosen = [i for i, one in enumerate(done) if one.instruction is not None]
    if not chosen:
        return done
    said = reflector.reflect([done[i].tried for i in chosen], [goals[i] for i in chosen])
    result = list(done)
    for i, text in zip(chosen, said, strict=True):
        accepted = nothing_wrong(text)
        image, kept = (done[i].tried, None) if accepted else (drafts[i], "second look")
        result[i] = replace(done[i], image=image, kept=kept, second=text)
    return result


def goal_text(target: tuple[int, ...]) -> str:
    """What the reflector is told: the whole scene, cell by cell."""
    return describe(target)


def nothing_wrong(text: str) -> bool:
    """Whether a reflector accepts a picture; one that says nothing readable does not."""
    seen = parse_observation(text)
    return seen is not None and seen.right


def repair_is_right(text: str, drawn: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether the observation names a wrong cell and what belongs there (detection and repair are scored apart)."""
    seen = parse_observation(text)
    if seen is None or seen.repair is None:
        return False
    cell = seen.repair.cell
    return drawn[cell] != target[cell] and target[cell] == seen.repair.item and seen.repair.item >= EMPTY
