"""The stage of the loop: drafts once, then both reflectors on them; metrics, rows and the strips of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from qwenlab.core.io import write_csv, write_json
from qwenlab.core.media import write_image
from qwenlab.core.scene_checker import agreement
from qwenlab.core.scene_prompts import Prompt, held_out_prompts
from qwenlab.core.scenes import WORLD
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import rounded
from qwenlab.latentcot.drawing import Images, Painter, QwenImagePainter
from qwenlab.latentcot.loop import HeuristicReflector, Reflector
from qwenlab.latentcot.loop_metrics import WAYS, Drafts, Loop, Turn, judge, make_drafts, summarise

_COLUMNS = (
    "seed", "item", "kind", "prompt", "said", *WAYS, *(f"{way}_score" for way in WAYS), "readable", "says_wrong",
    "wrong_cells", "repair_right", "edit_done", "rest_kept", "second",
)  # fmt: skip


class Remembering:
    """A painter that makes each edit once: reflectors that ask for the same repair get the same picture."""

    def __init__(self, painter: Painter):
        self.painter, self.name = painter, painter.name
        self._edits: dict[tuple[bytes, str, int], Image.Image] = {}

    def draw(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        return self.painter.draw(prompts, seeds)

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        key = (image.tobytes(), instruction, seed)
        if key not in self._edits:
            self._edits[key] = self.painter.edit(image, instruction, seed)
        return self._edits[key]

    def release(self) -> None:
        self.painter.release()


def run(
    images: Images, loop: Loop, seeds: list[int], reflectors: Callable[[str, int], Reflector], metrics: str | Path
) -> dict[str, Any]:
    """Judge the loop on held-out prompts; writes loop.json, loop.csv and strips.png, and the JSON of two comparisons.

    `loop` reflects with latents, `loop_text` with the control that was trained without them, and `loop_heuristic` is
    the ceiling: there the reflector is the checker itself.

    Args:
        reflectors: (arm "latent" or "text", seed) -> the trained reflector.
        metrics: folder to write to.
    """
    seed_everything(0)
    folder, painter = Path(metrics), Remembering(QwenImagePainter(images))
    prompts = held_out_prompts(loop.prompts, loop.prompt_seed, WORLD, tuple(loop.kinds))
    rows: dict[str, list[dict[str, Any]]] = {"loop": [], "loop_text": [], "loop_heuristic": []}
    first: tuple[Drafts, Turn] | None = None
    for seed in seeds:
        drafts = make_drafts(painter, prompts, seed)
        turn = judge(painter, reflectors("latent", seed), prompts, drafts, seed)
        first = first or (drafts, turn)
        rows["loop"] += turn.rows
        for name, other in (("loop_text", reflectors("text", seed)), ("loop_heuristic", HeuristicReflector())):
            rows[name] += judge(painter, other, prompts, drafts, seed, reprompt=False).rows
        print(f"seed {seed}: judged {len(prompts)} prompts", flush=True)
    results = {name: rounded(summarise(found, loop.resamples)) for name, found in rows.items()}
    results["loop"]["checker"] = rounded(agreement(loop.checked, loop.prompt_seed, min(images.width, images.height)))
    for name, result in results.items():
        write_json(folder / f"{name}.json", result)
    write_csv(folder / "loop.csv", rows["loop"], _COLUMNS)
    if first is not None:
        write_image(folder / "strips.png", strips(prompts, *first, loop.strips))
    return results


def strips(prompts: list[Prompt], drafts: Drafts, turn: Turn, count: int) -> Image.Image:
    """Rows of draft, observation and refined picture: wrong drafts first in order, mended or not, then right ones."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wrong = [i for i, row in enumerate(turn.rows) if row["wrong_cells"]]
    right = [i for i, row in enumerate(turn.rows) if not row["wrong_cells"]]
    kept = min(len(right), max(1, count // 4))
    chosen = [*wrong[: max(1, count - kept)], *right[:kept]]
    figure, axes = plt.subplots(
        len(chosen), 3, figsize=(9, 1.35 * len(chosen)), width_ratios=[1, 4.2, 1], squeeze=False
    )
    for axis, title in zip(axes[0], ("draft", "prompt, and what the reflector says", "refined"), strict=True):
        axis.set_title(title, fontsize=9)
    for line, i in zip(axes, chosen, strict=True):
        row = turn.rows[i]
        for axis, image, right_now in (
            (line[0], drafts.a[i], row["draft"]),
            (line[2], turn.refined[i], row["refined"]),
        ):
            axis.imshow(image, interpolation="nearest")
            axis.set_xlabel("right" if right_now else "wrong", fontsize=8, color="#2a7d2e" if right_now else "#b3261e")
            axis.set_xticks([])
            axis.set_yticks([])
        line[1].axis("off")
        line[1].text(0.02, 0.7, prompts[i].text, fontsize=8, wrap=True, va="center")
        line[1].text(0.02, 0.28, f"“{turn.texts[i] or '(nothing)'}”", fontsize=8, style="italic", va="center")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return Image.open(buffer).convert("RGB")
