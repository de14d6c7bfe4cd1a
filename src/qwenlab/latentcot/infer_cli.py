"""`qwenlab infer`: draw a picture, let a model look at it, refine it (seed 000, "推理").

    qwenlab infer --prompt "a red circle at the top left" --output-dir out --backend procedural --reflector heuristic

Writes draft.png, refined.png and result.json. Models and sizes come from the active profile unless given here.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import click

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params, load


class Infer(Params):
    """Defaults of the command that no stage reads."""

    reflector_model: str  # a Qwen2.5-VL folder or hub id


PROCEDURAL_NOTE = (
    "procedural backend: no model weights were used; the pictures are rendered from the prompt by a program, with a "
    "defect in half of the drafts. It serves tests of the plumbing and says nothing about any model."
)


@click.command(context_settings={"max_content_width": 110})
@click.option("--prompt", required=True, help="What to draw.")
@click.option("--output-dir", required=True, type=click.Path(path_type=Path, file_okay=False), help="For the results.")
@click.option("--backend", type=click.Choice(["local", "procedural"]), default="local", show_default=True)
@click.option("--reflector", type=click.Choice(["qwen_vl", "heuristic"]), default="qwen_vl", show_default=True)
@click.option("--refine", type=click.Choice(["edit", "redraw"]), default="edit", show_default=True)
@click.option("--qwen-image-model", help="Folder or hub id that draws.  [default: the profile's]")
@click.option("--qwen-image-edit-model", help="Folder or hub id that edits.  [default: --qwen-image-model]")
@click.option("--reflector-model", help="Qwen2.5-VL folder or hub id.  [default: the profile's]")
@click.option("--no-latents", is_flag=True, help="Let the reflector write without latent thoughts.")
@click.option("--no-second-look", is_flag=True, help="Keep the refined picture even if the reflector refuses it.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draft's noise.")
@click.option("--steps", type=click.IntRange(2), help="Denoising steps.  [default: the profile's]")
@click.option("--device", help="cpu, cuda, cuda:1 or mps.  [default: the profile's]")
def infer(prompt: str, output_dir: Path, **options: Any) -> None:
    """Draw, reflect, refine: draft.png, refined.png and result.json."""
    if not prompt.strip():
        raise UserError("--prompt is empty; expected what to draw.")
    from qwenlab.core.io import make_dir, write_json
    from qwenlab.core.media import write_image

    painter = make_painter(options)
    reflector = make_reflector(options)
    make_dir(output_dir)
    draft, refined, result = run(painter, reflector, prompt, options)
    write_image(output_dir / "draft.png", draft)
    write_image(output_dir / "refined.png", refined)
    write_json(output_dir / "result.json", result)
    for line in summary(result):
        click.echo(line)
    click.echo(f"{output_dir}: draft.png, refined.png, result.json")


def make_painter(options: dict[str, Any]):
    """The painter that the options name.

    Raises:
        UserError: on a bad device or folder, or when the profile cannot be read.
    """
    from qwenlab.latentcot.drawing import Images, ProceduralPainter, QwenImagePainter

    if options["backend"] == "procedural":
        return ProceduralPainter()
    settings = load("latentcot.images", Images)
    changes = {"device": options["device"], "steps": options["steps"], "draw_model": options["qwen_image_model"]}
    changes["edit_model"] = options["qwen_image_edit_model"] or options["qwen_image_model"]
    return QwenImagePainter(settings.model_copy(update={k: v for k, v in changes.items() if v is not None}))


def make_reflector(options: dict[str, Any]):
    """The reflector that the options name.

    Raises:
        UserError: when its folder holds no model.
    """
    from qwenlab.latentcot.loop import HeuristicReflector

    if options["reflector"] == "heuristic":
        return HeuristicReflector()
    from qwenlab.latentcot.reflect import from_parameters

    model = options["reflector_model"] or load("latentcot.infer", Infer).reflector_model
    return from_parameters(model, options["device"], latents=not options["no_latents"])


def run(painter, reflector, prompt: str, options: dict[str, Any]):
    """(draft, refined, result.json) of one prompt."""
    from qwenlab.core.scene_prompts import read_prompt
    from qwenlab.latentcot.loop import goal_text, look_again, refine_all

    known = read_prompt(prompt)
    goal = goal_text(known.target) if known else prompt
    marks = [time.perf_counter()]
    draft = painter.draw([prompt], [options["seed"]])[0]
    marks.append(time.perf_counter())
    text = reflector.reflect([draft], [goal])[0]
    marks.append(time.perf_counter())
    done = refine_all(painter, [draft], [prompt], [text], [options["seed"]], options["refine"])
    if not options["no_second_look"]:
        done = look_again(reflector, [draft], [goal], done)
    marks.append(time.perf_counter())
    spent = [round(b - a, 4) for a, b in itertools.pairwise(marks)]
    result: dict[str, Any] = {
        "prompt": prompt,
        "backend": painter.name,
        "reflector": options["reflector"],
        "refine": options["refine"],
        "seed": options["seed"],
        "goal": goal,
        "reflection": text,
        "refine_prompt": done[0].instruction,
        "second_look": done[0].second,
        "kept": done[0].kept,
        "scores": None
        if known is None
        else {n: score(i, known.target) for n, i in (("draft", draft), ("refined", done[0].image))},
        "timings": dict(zip(("draw_s", "reflect_s", "refine_s"), spent, strict=True)),
        "notes": notes(painter.name, known is not None),
    }
    return draft, done[0].image, result


def score(image, target) -> dict[str, Any]:
    """What the checker says of a picture."""
    import numpy as np

    from qwenlab.core.scene_checker import UNCLEAR, verify
    from qwenlab.core.scenes import WORLD

    check = verify(np.asarray(image.convert("RGB")), target)
    words = ["unclear" if item == UNCLEAR else WORLD.name(item) for item in check.found]
    return {"score": check.score, "all_correct": check.all_correct, "found": ", ".join(words)}


def notes(backend: str, known: bool) -> list[str]:
    """What a reader of result.json must know."""
    found = [PROCEDURAL_NOTE] if backend == "procedural" else []
    return found if known else [*found, "the prompt is not in the language of scenes: the checker cannot score it."]


def summary(result: dict[str, Any]) -> list[str]:
    """The result in a few lines."""
    done = result["refine_prompt"] or "none"
    done += f"; the draft was kept ({result['kept']})" if result["kept"] else ""
    lines = [f"reflection: {result['reflection'] or '(nothing)'}", f"refinement: {done}"]
    if result["scores"]:
        lines.append(
            "cells right: " + ", ".join(f"{name} {one['score']:.2f}" for name, one in result["scores"].items())
        )
    return [*lines, *result["notes"]]
