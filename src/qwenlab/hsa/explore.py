"""An agent explores training worlds; what it does becomes the data of phases 2 and 3 (seed 003, background 2).

A plain model (no semantic attention) learns a little from expert trajectories and then answers on its own. What went
well is mixed with expert trajectories (`mixed.jsonl`); what went wrong is told so by the world and put right
(`reflective.jsonl`). All arms learn from the same files. `test_reflective.jsonl` is the same on held-out worlds: from
it, the rate of recovery after an error is measured, on the same errors for every arm.
"""

import random
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, make_dir, write_json
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.hsa.conversations import conversation
from qwenlab.hsa.encoding import START, encode
from qwenlab.hsa.model import Arm, HSAConfig, Runtime, new_model
from qwenlab.hsa.train import Phases, examples_of, fit
from qwenlab.hsa.world import World, record
from qwenlab.hsa.worlds import Files, Worlds, copy_checked, worlds_of, write_records

PLAIN = Arm(attention=HSAConfig(slope=(0.0, 0.0, 0.0), window=(None, None, None)), shuffle=False, feedback=False)


class Explore(Params):
    """How much the explorer learns, and how much it explores."""

    seed: int
    steps: int = Field(ge=0, description="of phase 1, before it explores")
    worlds: int = Field(ge=1, description="training worlds that it explores")
    test_worlds: int = Field(ge=1, description="held-out worlds, for the errors that recovery is measured on")
    mixed: int = Field(ge=1, description="trajectories of phase 2")
    temperature: float = Field(gt=0)
    batch: int = Field(ge=1, description="worlds explored at once")


def requested(world: World, answers: list[str], tokenizer) -> list[int]:
    """Tokens up to where the next answer begins."""
    n = len(answers)
    said = [*answers, *([answers[-1] if answers else "x"] * (len(world.wanted) - n))]
    ids = encode(tokenizer, conversation(record(world, said, upto=n + 1)), cutoff=10**6)["input_ids"]
    opening = tokenizer.encode(f"{START}assistant\n", add_special_tokens=False)
    starts = [i for i in range(len(ids)) if ids[i : i + len(opening)] == opening]
    return ids[: starts[-1] + len(opening)]


@torch.no_grad()
def roll_out(model: Any, tokenizer: Any, worlds: list[World], params: Explore) -> list[list[str]]:
    """The rooms that the model names for every thing it is asked for, in its own words; sampled."""
    answers: list[list[str]] = [[] for _ in worlds]
    tokenizer.padding_side = "left"
    for first in range(0, len(worlds), params.batch):
        rows = range(first, min(first + params.batch, len(worlds)))
        for turn in range(max(len(worlds[row].wanted) for row in rows)):
            here = [row for row in rows if turn < len(worlds[row].wanted)]
            batch = tokenizer.pad(
                {"input_ids": [requested(worlds[row], answers[row], tokenizer) for row in here]}, return_tensors="pt"
            ).to(model.device)
            said = model.generate(
                **batch, max_new_tokens=12, do_sample=True, temperature=params.temperature, top_k=0, top_p=1.0,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            )[:, batch["input_ids"].shape[1] :]  # fmt: skip
            for row, ids in zip(here, said, strict=True):
                words = tokenizer.decode(ids, skip_special_tokens=True).split()
                # The last word is where it went; without one, it went nowhere.
                answers[row].append(words[-1] if words else "nowhere")
    return answers


def explore(params: Explore, worlds: Worlds, phases: Phases, runtime: Runtime, files: Files, worlds_dir: str | Path,
            out: str | Path) -> dict[str, float]:  # fmt: skip
    """Write mixed.jsonl, reflective.jsonl, test_reflective.jsonl and explorer.json; returns what explorer.json holds.

    Raises:
        UserError: when the explorer never fails, or never succeeds.
    """
    out = Path(out)
    if files.own:
        with atomic_dir(out) as folder:
            for name in ("mixed", "reflective", "test_reflective"):
                copy_checked(str(getattr(files, name)), folder / f"{name}.jsonl")
        return {}
    seed_everything(params.seed)
    model, tokenizer = new_model(runtime, PLAIN)
    expert = Path(worlds_dir) / "expert.jsonl"
    few = phases.model_copy(update={"steps": {"expert": params.steps}, "save_steps": 0})
    with atomic_dir(out) as folder:
        if params.steps:
            examples = examples_of(expert, tokenizer, phases.cutoff, shuffle=False)
            fit(model.train(), tokenizer, examples, few, runtime, "expert", params.seed, make_dir(folder / "work"))
        model.eval()
        seen = worlds_of(params.seed, "explore", params.worlds, worlds.sizes)
        fresh = worlds_of(params.seed, "test explore", params.test_worlds, worlds.sizes)
        answers = roll_out(model, tokenizer, [*seen, *fresh], params)
        tried = list(zip([*seen, *fresh], answers, strict=True))
        right = [[world.where[thing] == room for thing, room in zip(world.wanted, said, strict=True)]
                 for world, said in tried]  # fmt: skip
        good = [record(world) for (world, _), ok in zip(tried[: len(seen)], right, strict=False) if all(ok)]
        wrong = [record(world, said) for (world, said), ok in zip(tried[: len(seen)], right, strict=False)
                 if not all(ok)]  # fmt: skip
        wrong_test = [record(world, said) for (world, said), ok in list(zip(tried, right, strict=True))[len(seen) :]
                      if not all(ok)]  # fmt: skip
        if not good or not wrong or not wrong_test:
            raise UserError(
                f"hsa.explore: of {len(seen)} worlds {len(good)} went well and {len(wrong)} wrong; expected some of "
                "both. Change hsa.explore.steps or temperature."
            )
        rng = random.Random(params.seed)
        experts = worlds_of(params.seed, "expert more", max(0, params.mixed - len(good)), worlds.sizes)
        mixed = [*good, *map(record, experts)][: params.mixed]
        rng.shuffle(mixed)
        write_records(folder / "mixed.jsonl", mixed)
        write_records(folder / "reflective.jsonl", wrong)
        write_records(folder / "test_reflective.jsonl", wrong_test)
        flat = [ok for one in right for ok in one]
        facts = {
            "answers_right": sum(flat) / len(flat),
            "went_well": len(good),
            "went_wrong": len(wrong),
            "went_wrong_test": len(wrong_test),
        }
        write_json(folder / "explorer.json", facts)
    return facts
