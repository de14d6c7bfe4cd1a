"""A tiny untrained Qwen2.5-VL and scene data, for the tests of the vision-language half."""

import json
from pathlib import Path

import torch

from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.method import Loss, Method
from qwenlab.latentcot.scene_data import Data, make
from qwenlab.latentcot.train import Train
from qwenlab.standins.vl_build import Recipe, build_model, build_processor

RECIPE = Recipe(
    seed=0, hidden=32, layers=2, heads=2, kv_heads=1, mlp=48, vision_hidden=32, vocab=440, caption_steps=1,
    caption_batch=2, caption_lr=1e-3, steps=1, batch=2, lr=1e-3, last_steps=1, last_lr=1e-3, last_right=0.3,
    first_token=2.0,
)  # fmt: skip
METHOD = Method(
    latents=3, alignment_layer="all_layers", first_layer=1, latent_norm="none", detach=True, only_through_latents=True,
    hide_auxiliary=True,
)  # fmt: skip
STAGES = ("stage1-1", "stage1-2", "stage1-3", "text", "pause")
TRAIN = Train(
    steps={"stage1-1": 2, "stage1-2": 2, "stage1-3": 2}, batch=4, lr=1e-3, warmup_steps=1, floor=0.1, weight_decay=0.01,
    losses={name: Loss(emphasize=2.0, align=0.0 if name in ("stage1-1", "text", "pause") else 1.0) for name in STAGES},
    save_steps=0, packed=False,
)  # fmt: skip


def runtime(model: str, **more) -> Runtime:
    values = {
        "model": model, "device": "cpu", "dtype": "float32", "attention": "sdpa", "processes": 1, "seeds_at_once": 1,
        "gradient_checkpointing": False, "fsdp": "",
    }  # fmt: skip
    return Runtime.model_validate({**values, **more})


def save_base(folder: Path) -> Path:
    """An untrained base checkpoint."""
    torch.manual_seed(0)
    processor = build_processor(RECIPE)
    build_model(RECIPE, processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_data(path: Path, count: int = 8, chained: float = 0.5) -> Path:
    """Scene samples in the seed's format."""
    rows = make(
        Data(seed=3, train=count, test=1, right=0.3, chained=chained, named=0.4, auxiliary="repair"),
        count,
        chained,
        3,
        False,
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
