"""What the loop is worth on held-out prompts: every way to spend two pictures, and detection apart from repair.

Protocol (compute-matched, as arXiv 2601.15286 compares refinement with parallel sampling): a prompt has draft A and,
for the controls, draft B of another seed. All ways take one or two runs of the image model with the same steps.

    draft        A
    redraw       B, whatever A is: a second try without reflection
    best_of_2    A or B, as the same reflector chooses (the first it accepts; A when it accepts none)
    refined      A edited by the reflector's repair, or A itself when it finds nothing wrong
    reprompted   A drawn again with the repair in the prompt, where it found something

The checker judges all. Differences are paired by prompt; intervals come from a bootstrap over prompts (the seeds of
one prompt stay together).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.core.scene_checker import read_scenes
from qwenlab.core.scene_prompts import Prompt
from qwenlab.latentcot.drawing import Painter
from qwenlab.latentcot.loop import Reflector, goal_text, look_again, nothing_wrong, refine_all, repair_is_right
from qwenlab.latentcot.observations import parse_observation

WAYS = ("draft", "redraw", "best_of_2", "edited", "refined", "reprompted")
SECOND = 104729  # added to a draft's seed for draft B


class Loop(Params):
    """How the loop is judged."""

    prompts: int = Field(ge=1)  # held-out prompts, kinds in turn
    kinds: list[Literal["one", "two", "colours", "position", "counting", "full"]] = Field(min_length=1)
    prompt_seed: int  # which prompts
    resamples: int = Field(ge=100)  # of the bootstrap
    strips: int = Field(ge=1)  # rows of the picture
    checked: int = Field(ge=1)  # renders a corruption, for the checker's own agreement


@dataclass
class Drafts:
    """Drafts A and B of every prompt with one seed, and the scenes in them `[N, cells]`."""

    a: list[Image.Image]
    b: list[Image.Image]
    seen_a: np.ndarray
    seen_b: np.ndarray


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """`[N, H, W, 3]` uint8."""
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def make_drafts(painter: Painter, prompts: Sequence[Prompt], seed: int) -> Drafts:
    """Both drafts of every prompt."""
    words = [prompt.text for prompt in prompts]
    seeds = [seed * 1_000_003 + index for index in range(len(prompts))]
    a, b = painter.draw(words, seeds), painter.draw(words, [one + SECOND for one in seeds])
    return Drafts(a, b, read_scenes(pixels(a)), read_scenes(pixels(b)))


@dataclass
class Turn:
    """Everything that happened to the drafts of one seed with one reflector."""

    texts: list[str]  # observations of A
    refined: list[Image.Image]
    rows: list[dict[str, Any]]  # one a prompt, for the CSV


def judge(
    painter: Painter, reflector: Reflector, prompts: Sequence[Prompt], drafts: Drafts, seed: int, reprompt: bool = True
) -> Turn:
    """Reflect on A and B, refine A, and score every way of `WAYS`."""
    targets = np.array([prompt.target for prompt in prompts])
    goals, words = [goal_text(prompt.target) for prompt in prompts], [prompt.text for prompt in prompts]
    seeds = [seed * 1_000_003 + index for index in range(len(prompts))]
    texts, texts_b = reflector.reflect(drafts.a, goals), reflector.reflect(drafts.b, goals)
    done = refine_all(painter, drafts.a, words, texts, seeds, "edit")
    done = look_again(reflector, drafts.a, goals, done)
    seen = {
        "draft": drafts.seen_a,
        "redraw": drafts.seen_b,
        "edited": read_scenes(pixels([r.tried for r in done])),
        "refined": read_scenes(pixels([r.image for r in done])),
    }
    if reprompt:
        again = refine_all(painter, drafts.a, words, texts, seeds, "redraw")
        again = look_again(reflector, drafts.a, goals, again)
        seen["reprompted"] = read_scenes(pixels([r.image for r in again]))
    take_b = [not nothing_wrong(a) and nothing_wrong(b) for a, b in zip(texts, texts_b, strict=True)]
    seen["best_of_2"] = np.where(np.array(take_b)[:, None], drafts.seen_b, drafts.seen_a)
    rows = []
    for i, prompt in enumerate(prompts):
        row: dict[str, Any] = {"seed": seed, "item": i, "kind": prompt.kind, "prompt": prompt.text, "said": texts[i]}
        for way in WAYS:
            if way in seen:
                row |= {
                    f"{way}_score": float((seen[way][i] == targets[i]).mean()),
                    way: int((seen[way][i] == targets[i]).all()),
                }
        row |= steps_of(texts[i], drafts.seen_a[i], seen["edited"][i], targets[i])
        row["second"] = done[i].second or ""
        rows.append(row)
    return Turn(texts, [r.image for r in done], rows)


def steps_of(text: str, drawn: np.ndarray, refined: np.ndarray, target: np.ndarray) -> dict[str, int]:
    """Detection, repair and edit apart: 1, 0, or nothing ("") where the step was not asked for."""
    parsed = parse_observation(text)
    repair = parsed.repair if parsed else None
    right = repair_is_right(text, tuple(drawn.tolist()), tuple(target.tolist()))
    steps: dict[str, Any] = {
        "readable": int(parsed is not None),
        "says_wrong": int(repair is not None),
        "wrong_cells": int((drawn != target).sum()),
        "repair_right": int(right),
        "edit_done": "",
        "rest_kept": "",
    }
    if repair is not None:
        rest = np.arange(len(target)) != repair.cell
        steps |= {
            "edit_done": int(refined[repair.cell] == repair.item),
            "rest_kept": int((refined[rest] == drawn[rest]).all()),
        }
    return steps


def share(values: Sequence[int]) -> float | None:
    """The mean; None without any value."""
    return float(np.mean(values)) if len(values) else None


def summarise_seed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rates of one seed."""
    wrong, right = [r for r in rows if r["wrong_cells"]], [r for r in rows if not r["wrong_cells"]]
    one = [r for r in wrong if r["wrong_cells"] == 1]
    told = [r for r in wrong if r["says_wrong"]]
    asked = [r for r in rows if r["says_wrong"]]
    ways = [way for way in WAYS if way in rows[0]]
    return {
        "all_correct": {way: share([r[way] for r in rows]) for way in ways},
        "score": {way: share([r[f"{way}_score"] for r in rows]) for way in ways},
        "harm": share([1 - r["refined"] for r in right]),
        "harm_edited": share([1 - r["edited"] for r in right]),
        "detection": {
            "wrong_found": share([r["says_wrong"] for r in wrong]),
            "right_accepted": share([1 - r["says_wrong"] for r in right]),
            "readable": share([r["readable"] for r in rows]),
        },
        "repair": {
            "right_of_found": share([r["repair_right"] for r in told]),
            "right_of_wrong": share([r["repair_right"] for r in wrong]),
        },
        "edit": {"done": share([r["edit_done"] for r in asked]), "rest_kept": share([r["rest_kept"] for r in asked])},
        "one_wrong_cell": {
            "share": len(one) / len(rows),
            "mended": share([r["refined"] for r in one]),
        },
    }


def interval(rows: Sequence[dict[str, Any]], new: str, old: str, resamples: int) -> dict[str, float]:
    """Difference of two ways with a 95% bootstrap interval over prompts, and how many pairs were won and lost."""
    per_prompt: dict[int, list[int]] = {}
    for row in rows:
        per_prompt.setdefault(row["item"], []).append(row[new] - row[old])
    means = np.array([np.mean(values) for values in per_prompt.values()])
    picks = np.random.default_rng(0).integers(len(means), size=(resamples, len(means)))
    low, high = np.quantile(means[picks].mean(1), (0.025, 0.975))
    signs = [row[new] - row[old] for row in rows]
    return {
        "value": float(means.mean()), "low": float(low), "high": float(high),
        "won": signs.count(1), "lost": signs.count(-1),
    }  # fmt: skip


def summarise(rows: Sequence[dict[str, Any]], resamples: int) -> dict[str, Any]:
    """Medians over seeds of the rates, and paired differences over all seeds."""
    by_seed = [summarise_seed([r for r in rows if r["seed"] == seed]) for seed in sorted({r["seed"] for r in rows})]
    result = _median(by_seed)
    result["prompts"] = len({row["item"] for row in rows})
    pairs = {
        "edited_minus_draft": ("edited", "draft"),
        "refined_minus_draft": ("refined", "draft"),
        "refined_minus_best_of_2": ("refined", "best_of_2"),
        "refined_minus_redraw": ("refined", "redraw"),
        "reprompted_minus_redraw": ("reprompted", "redraw"),
    }
    for name, (new, old) in pairs.items():
        if new in rows[0]:
            result[name] = interval(rows, new, old, resamples)
    return result


def _median(values: Sequence[Any]) -> Any:
    """The median over seeds, all through nested results; a rate that no seed has is left out."""
    if isinstance(values[0], dict):
        merged = {key: _median([value[key] for value in values]) for key in values[0]}
        return {key: value for key, value in merged.items() if value is not None}
    numbers = [value for value in values if value is not None]
    return statistics.median(numbers) if numbers else None
