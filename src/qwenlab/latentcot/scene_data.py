"""The data of the experiment: drawings of scenes to check against a goal, written in the seed's format.

A sample is a goal in words and a draft; the assistant's placeholder stands for an auxiliary image that shows the
target, and the observation names the first wrong cell and its repair. Half of the goals name every cell (direct),
half name cells by how they differ from the one before (chained, `goals`). Targets of the test file are held out by
hash from all training, that of the stand-in included.
"""

import base64
import io
import json
from pathlib import Path

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


class Data(Params):
    """How much data, and of what kind."""

    seed: int
    train: int = Field(ge=1)
    test: int = Field(ge=1, description="of each kind of goal")
    right: float = Field(ge=0, le=1, description="share of drawings without a defect")
    chained: float = Field(ge=0, le=1, description="share of training samples with a chained goal")
    named: float = Field(ge=0, le=1, description="share of colours and shapes that a chained goal names outright")


def data_uri(image: np.ndarray) -> str:
    """A picture `[H, W, 3]` as text: thousands of small files are slow to hash and copy."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


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
        rows.append((goal, kind, depth, target, drawn))
    plain = np.array([row[3] for row in rows])
    drawn_images = pictures(np.array([row[4] for row in rows]), scenes.rng, SIZE)
    target_images = pictures(plain, scenes.rng, SIZE)
    return [
        record(
            str(first + number), goal, data_uri(draft), data_uri(auxiliary), observation(drawn, target),
            {"goal": kind, "depth": depth, "target": list(target), "drawn": list(drawn)},
        )
        for number, ((goal, kind, depth, target, drawn), draft, auxiliary) in enumerate(
            zip(rows, drawn_images, target_images, strict=True)
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
