"""The two painters of the loop: Qwen-Image (draws) with Qwen-Image-Edit (edits), and one without any weights.

A painter draws a picture from a prompt and edits a picture by an instruction; the same seed gives the same picture.
The tiny checkpoint is one folder for both pipelines; the published ones are two checkpoints.
"""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.image_conditioning import template_length, working_areas
from qwenlab.core.params import Params
from qwenlab.core.scene_checker import read_scene
from qwenlab.core.scene_images import render
from qwenlab.core.scene_prompts import read_prompt
from qwenlab.core.scenes import DEFECTS, WORLD, apply, defect, read_repairs

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Images(Params):
    """Which checkpoints paint, where, and at what size."""

    draw_model: str  # a QwenImagePipeline: folder or hub id
    edit_model: str  # a QwenImageEditPlusPipeline: folder or hub id; may be the same folder
    device: str
    dtype: Literal["fp32", "bf16", "fp16"]
    offload: Literal["none", "model", "sequential"]  # how memory is saved on a GPU
    width: int = Field(ge=16)  # pixels of every picture
    height: int = Field(ge=16)
    steps: int = Field(ge=2)  # with 1, the scheduler's shift to its last sigma divides 0 by 0
    cfg: float = Field(ge=1)  # true_cfg_scale; 1 is off
    negative_prompt: str
    batch: int = Field(ge=1)  # prompts drawn at once


class Painter(Protocol):
    """What the loop needs."""

    name: str

    def draw(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]: ...

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image: ...

    def release(self) -> None: ...


def check_device(device: str) -> None:
    """Refuse a device this machine does not have.

    Raises:
        UserError: for an unknown device, or CUDA / MPS without one.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown: expected cpu, cuda, cuda:0, mps ...") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} was asked for, but torch finds no CUDA GPU here: use --device cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {device!r} was asked for, but torch finds no Apple GPU here: use --device cpu.")


def check_folder(model: str, what: str) -> None:
    """Refuse a local path that holds no pipeline; a hub id passes.

    Raises:
        UserError: naming the path.
    """
    folder = Path(model)
    if (folder.exists() or model.startswith((".", "/"))) and not (folder / "model_index.json").is_file():
        raise UserError(f"{model}: no {what} pipeline there (model_index.json is missing).")


class QwenImagePainter:
    """The stock pipelines, loaded when first used, one after the other: both at full size would not fit together."""

    name = "local"

    def __init__(self, settings: Images):
        check_device(settings.device)
        check_folder(settings.draw_model, "Qwen-Image")
        check_folder(settings.edit_model, "Qwen-Image-Edit")
        self.settings = settings
        self._pipes: dict[str, Any] = {}

    def _pipe(self, kind: str) -> Any:
        """The pipeline "draw" or "edit". Two that share a folder share their weights; otherwise one at a time."""
        if kind in self._pipes:
            return self._pipes[kind]
        from diffusers import QwenImageEditPlusPipeline, QwenImagePipeline

        cls: Any = QwenImagePipeline if kind == "draw" else QwenImageEditPlusPipeline
        settings = self.settings
        model = settings.draw_model if kind == "draw" else settings.edit_model
        shared = settings.draw_model == settings.edit_model
        if not shared:
            self.release()
        try:
            if shared:
                whole = QwenImageEditPlusPipeline.from_pretrained(model, dtype=DTYPES[settings.dtype])
                parts = {name: part for name, part in whole.components.items() if name != "processor"}
                pipes = {"edit": whole, "draw": QwenImagePipeline(**parts)}
            else:
                pipes = {kind: cls.from_pretrained(model, dtype=DTYPES[settings.dtype])}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{model}: the pipeline cannot be loaded ({(str(error) or '?').splitlines()[0]})."
            ) from error
        for pipe in pipes.values():
            # 34 and 64 in diffusers, which hold for the published tokenizer only.
            pipe.prompt_template_encode_start_idx = template_length(pipe)
            pipe.set_progress_bar_config(disable=True)
            self._place(pipe)
        self._pipes |= pipes
        return self._pipes[kind]

    def _place(self, pipe: Any) -> None:
        device = self.settings.device
        if self.settings.offload == "none":
            pipe.to(device)
        elif torch.device(device).type == "cpu":
            raise UserError(f"offload {self.settings.offload!r} moves weights to a GPU, but the device is cpu.")
        elif self.settings.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.enable_sequential_cpu_offload(device=device)

    def _options(self) -> dict[str, Any]:
        cfg = self.settings.cfg
        return {
            "negative_prompt": self.settings.negative_prompt if cfg > 1 else None,
            "true_cfg_scale": cfg,
            "height": self.settings.height,
            "width": self.settings.width,
            "num_inference_steps": self.settings.steps,
        }

    def draw(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        """A picture a prompt; each has its own generator, so that batches do not change the pictures' noise."""
        pipe, options, images = self._pipe("draw"), self._options(), []
        negative = options.pop("negative_prompt")
        for i in range(0, len(prompts), self.settings.batch):
            part = prompts[i : i + self.settings.batch]
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[i : i + self.settings.batch]]
            against = None if negative is None else [negative] * len(part)
            images += pipe(part, negative_prompt=against, generator=generators, **options).images
        return images

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """The picture after the instruction, at its own size."""
        pipe, generator = self._pipe("edit"), torch.Generator("cpu").manual_seed(seed)
        area = self.settings.width * self.settings.height
        with working_areas(min(area, 1024 * 1024), min(area, 384 * 384)):  # the published areas, or less
            return pipe(image=[image], prompt=instruction, generator=generator, **self._options()).images[0]

    def release(self) -> None:
        """Give the memory of the pipelines back."""
        self._pipes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class ProceduralPainter:
    """No weights: renders scenes with a random defect, and edits what the checker reads. Serves the plumbing only."""

    name = "procedural"

    def __init__(self, size: int = 64):
        self.size = size

    def draw(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        """Half of the pictures have one defect.

        Raises:
            UserError: for a prompt outside the language of scenes: without a model nothing else can be drawn.
        """
        return [self._draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _draw(self, text: str, seed: int) -> Image.Image:
        prompt = read_prompt(text.split(";")[0])
        if prompt is None:
            raise UserError(
                f"prompt {text!r}: the procedural backend draws scenes only, such as 'a red circle at the top left' "
                "or 'red circle, no shape, blue square, green triangle'; use --backend local."
            )
        rng, scene = np.random.default_rng(seed), prompt.target
        if rng.random() < 0.5:
            kinds = [k for k in rng.permutation(DEFECTS) if defect(scene, str(k), rng) is not None]
            found = defect(scene, str(kinds[0]), rng)
            scene = found[0] if found else scene
        return Image.fromarray(render(scene, self.size))

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """The scene that the checker reads, repaired and rendered again; unchanged when the words say nothing."""
        scene = read_scene(np.asarray(image))
        repairs = read_repairs(instruction) or []
        for repair in repairs:
            scene = apply(scene, repair)
        known = tuple(max(item, 0) for item in scene)
        return Image.fromarray(render(known, self.size, WORLD)) if repairs else image

    def release(self) -> None:
        """Nothing to give back."""
