"""The data of the experiment: drawings of scenes to check against a goal, written in the seed's format.

A sample is a goal in words and a draft; the assistant's placeholder stands for an auxiliary image, and the
observation names the first wrong cell and its repair. The auxiliary image shows what has to be drawn anew, all else
greyed out (`repair`), or the whole target (`target`). Half of the goals name every cell (direct), half name cells by
how they differ from the one before (chained, `goals`). Targets of the test file are held out by hash from all
training, that of the stand-in included.
"""

import base64
import io
import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.scenes import WORLD, describe
from qwenlab.latentcot.goals import chained
from qwenlab.latentcot.observations import observation
from qwenlab.latentcot.tokens import OBSERVATION_END, OBSERVATION_START, PLACEHOLDER
from qwenlab.standins.vl_data import ASK_FIX, SYSTEM, Scenes, pictures

SIZE = 32  # pixels of a picture
GREY = 128  # of what an auxiliary image does not show; an empty cell is nearly white


class Data(Params):
    """How much data, and of what kind."""

    seed: int
    train: int = Field(ge=1)
    test: int = Field(ge=1, description="of each kind of goal")
    right: float = Field(ge=0, le=1, description="share of drawings without a defect")
    chained: float = Field(ge=0, le=1, description="share of training samples with a chained goal")
    named: float = Field(ge=0, le=1, description="share of colours and shapes that a chained goal names outright")
    auxiliary: Literal["repair", "target"] = Field(description="what the assistant's image shows")


def data_uri(image: np.ndarray) -> str:
    """A picture `[H, W, 3]` as text: thousands of small files are slow to hash and copy."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def only_repair(images: np.ndarray, wrong: list[list[int]]) -> np.ndarray:
    """Pictures of targets `[N, S, S, 3]` with all but the first wrong cell greyed out, or all if none is wrong."""
    count = len(images)
    grid = images.reshape(count, WORLD.rows, SIZE // WORLD.rows, WORLD.columns, SIZE // WORLD.columns, 3)
    grid = grid.transpose(0, 1, 3, 2, 4, 5)
    shown = np.full_like(grid, GREY)
    for row, cells in enumerate(wrong):
        if cells:
            at = divmod(cells[0], WORLD.columns)
            shown[row][at] = grid[row][at]
    return shown.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)


def question(goal: str) -> str:
    """The user's words."""
    return f"goal : {goal} {ASK_FIX}"


def record(number: str, goal: str, draft: str, target: str, seen: str, facts: dict) -> dict:
    """One sample in the seed's format; pictures as references."""
    text = [PLACEHOLDER, f"{OBSERVATION_START}{seen}{OBSERVATION_END}"]
    return {
        "metadata": {"dataset_name": "scenes", "sample_id": number, **facts},
        "data": [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            {
                "role": "user",
                "content": [{"type": "image", "image": draft}, {"type": "text", "text": question(goal)}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": text[0]},
                    {"type": "image", "image": target},
                    {"type": "text", "text": text[1]},
                ],
            },
        ],
    }


def make(params: Data, count: int, share: float, seed: int, held: bool, first: int = 0) -> list[dict]:
    """`count` samples, a share of them with a chained goal; metadata says kind, depth and scenes."""
    scenes = Scenes(seed, held, params.right)
    rows = []
    for _ in range(count):
        target = scenes.target()
        drawn = scenes.draft(target)
        goal, depths, kind = describe(target), [0] * WORLD.cells, "direct"
        if scenes.rng.random() < share:
            named = scenes.rng.random((WORLD.cells, 2)) < params.named
            (goal, depths), kind = chained(target, named), "chained"
        wrong = [cell for cell in range(WORLD.cells) if target[cell] != drawn[cell]]
        # How long the chain is that the answer hangs on: to the wrong cell, or to the last one if nothing is wrong.
        depth = depths[wrong[0]] if wrong else max(depths)
        rows.append((goal, kind, depth, target, drawn, wrong))
    plain = np.array([row[3] for row in rows])
    drawn_images = pictures(np.array([row[4] for row in rows]), scenes.rng, SIZE)
    shown = pictures(plain, scenes.rng, SIZE)
    if params.auxiliary == "repair":
        shown = only_repair(shown, [row[5] for row in rows])
    return [
        record(
            str(first + number), goal, data_uri(draft), data_uri(auxiliary), observation(drawn, target),
            {"goal": kind, "depth": depth, "target": list(target), "drawn": list(drawn)},
        )
        for number, ((goal, kind, depth, target, drawn, _), draft, auxiliary) in enumerate(
            zip(rows, drawn_images, shown, strict=True)
        )
    ]  # fmt: skip


def run(params: Data, model_path: str, runtime, out: str | Path) -> None:
    """Write train.jsonl and test.jsonl, and beside each the vision features of its pictures by the base's tower."""
    from qwenlab.latentcot.checkpoint import load
    from qwenlab.latentcot.features import FILE, build, save
    from qwenlab.latentcot.samples import read_samples

    test = make(params, params.test, 0.0, params.seed + 1, True)
    test += make(params, params.test, 1.0, params.seed + 2, True, params.test)
    files = {"train": make(params, params.train, params.chained, params.seed, False), "test": test}
    model, processor = load(model_path, runtime)
    with atomic_dir(out) as folder:
        for name, records in files.items():
            path = folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
            samples, _ = read_samples(path)
            features, _, _ = build(model, processor, samples, folder)
            save(features, model, folder / f"{name}.{FILE}")
