"""The pictures of hsa: recall by length for every arm, and where a query looks, with semantic attention and without."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from qwenlab.core.errors import UserError
from qwenlab.core.figures import INK, SOFT, arm_look, new_figure, tidy
from qwenlab.core.io import read_json
from qwenlab.core.params import Params
from qwenlab.hsa.attention import session
from qwenlab.hsa.conversations import read_conversations
from qwenlab.hsa.encoding import encode
from qwenlab.hsa.model import Runtime, load_model
from qwenlab.hsa.semantics import LANDMARK
from qwenlab.hsa.words import ROOMS

BANDS = {1: ("#F0E442", "LANDMARK"), 0: ("#d6e4f0", "GLOBAL")}  # NOISE stays white


class Shown(Params):
    """Which trajectory and answer the attention picture shows."""

    trajectory: int
    answer: int


def draw_recall(path: Path, metrics: Path, arms: list[str]) -> None:
    """Recall at every length: the median as a line, every seed as a marker; and the rate of recovery."""
    found = {arm: read_json(metrics / f"{arm}.json") for arm in arms}
    # Arms that differ in phase 3 only have one recall, and one line.
    same = {arm for n, arm in enumerate(arms) if any(found[arm]["recall"] == found[b]["recall"] for b in arms[:n])}
    lengths = sorted(found[arms[0]]["recall"], key=lambda name: int(name[:-1]))
    with new_figure(path, 8, 3.8) as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=[1.6, 1])
        for number, (arm, one) in enumerate(found.items()):
            style = arm_look(number)
            right.plot([number] * len(one["seeds"]), [seed["recovery"] for seed in one["seeds"].values()], ls="none",
                       ms=7, alpha=0.8, **style)  # fmt: skip
            right.plot([number - 0.25, number + 0.25], [one["recovery"]] * 2, lw=2, color=style["color"])
            if arm in same:
                continue
            left.plot(lengths, [one["recall"][name] for name in lengths], lw=2, label=arm, color=style["color"])
            shift = (number - len(arms) / 2 + 0.5) * 0.06
            for seed in one["seeds"].values():
                x = [place + shift for place in range(len(lengths))]
                left.plot(x, [seed["recall"][name] for name in lengths], ls="none", ms=5, alpha=0.8, **style)
        tidy(left, "recall", "right answers; training is at 1x the noise")
        tidy(right, "recovery", "errors put right after feedback")
        left.set(ylim=(-0.02, 1.04), xlabel="noise of held-out worlds")
        right.set(ylim=(-0.02, 1.04))
        right.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms], fontsize=9)
        right.grid(False, axis="x")
        left.legend(loc="center left", bbox_to_anchor=(0.02, 0.66), fontsize=9)


@torch.no_grad()
def looked_at(
    model: Any, tokenizer: Any, conversation: Any, answer: int
) -> tuple[np.ndarray, list[int], list[str], int]:
    """Attention `[layers, keys]`, mean over heads, of the token after which an answer names its room; the types and
    texts of the keys; and the place of the room that was put there."""
    example = encode(tokenizer, conversation, cutoff=10**6)
    ids, types = example["input_ids"], example["semantic_ids"]
    rooms = {tokenizer.encode(f" {room}", add_special_tokens=False)[0] for room in ROOMS}
    named = [n for n, label in enumerate(example["labels"]) if label in rooms]
    if answer >= len(named):
        raise UserError(f"hsa.plots.answer is {answer}; the trajectory has {len(named)} answers.")
    query = named[answer] - 1
    truth = next(
        n for n in range(query) if types[n] == LANDMARK and ids[n] == ids[query + 1] and ids[n - 1] == ids[query]
    )
    before = model.config._attn_implementation
    model.set_attn_implementation("hsa_eager")
    with session(model, torch.tensor([types])):
        weights = model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation(before)
    mean = torch.stack([layer[0, :, query, : query + 1].mean(0) for layer in weights])
    texts = [tokenizer.decode([token]) for token in ids[: query + 1]]
    return mean.numpy(), types[: query + 1], texts, truth


def _shade(panel: Axes, types: list[int]) -> None:
    """Bands of colour where tokens are LANDMARK or GLOBAL."""
    start = 0
    for n in range(1, len(types) + 1):
        if n == len(types) or types[n] != types[start]:
            if types[start] in BANDS:
                colour, name = BANDS[types[start]]
                shown = not panel.get_legend_handles_labels()[1].count(name)
                panel.axvspan(start - 0.5, n - 0.5, color=colour, alpha=0.6, lw=0, label=name if shown else None)
            start = n


def draw_attention(path: Path, models: dict[str, Path], file: Path, shown: Shown, runtime: Runtime) -> None:
    """Where the last layer looks when a room is about to be named; a panel an arm, the same trajectory."""
    conversation = read_conversations(file)[shown.trajectory]
    with new_figure(path, 8, 1.0 + 2.0 * len(models)) as drawn:
        panels = drawn.subplots(len(models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for panel, (arm, folder) in zip(panels, models.items(), strict=True):
            model, tokenizer = load_model(runtime, folder)
            mean, types, texts, truth = looked_at(model, tokenizer, conversation, shown.answer)
            _shade(panel, types)
            panel.vlines(range(len(types)), 0, mean[-1], color=INK, lw=1.2)
            room = f"put{texts[truth - 1]}{texts[truth]}"
            panel.plot([truth], [0.62], marker="v", color=SOFT, ms=5)
            panel.text(truth, 0.68, room, ha="center", color=INK, fontsize=9)
            kept = mean[-1][np.array(types) != 2].sum()
            tidy(panel, arm, f"asked for{texts[-1]}: {kept:.0%} of the attention is on GLOBAL and LANDMARK tokens")
            panel.set(ylim=(0, 1.0), ylabel="attention")
        panels[-1].set_xlabel("token of the trajectory; white is NOISE")
        panels[0].legend(loc="upper left", fontsize=9)
