"""Loading the edit pipeline for guidance, and drawing one frame with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.image_conditioning import template_length, working_areas, working_size
from qwenlab.core.image_vae import enable_image_mode
from qwenlab.core.media import to_image, to_tensor
from qwenlab.core.params import Params
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.guidance import (
    GuidanceLog,
    Targets,
    callback_inputs,
    make_ttlg_callback,
)
from qwenlab.videoedit.losses import VGGStyleExtractor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime(Params):
    """Which checkpoint, where it runs, and how memory is saved."""

    model: str  # a folder or a hub id
    device: str
    dtype: Literal["fp32", "bf16", "fp16"]
    # none | model (one component on the GPU at a time) | group (layer groups, streamed) | sequential (slowest)
    offload: Literal["none", "model", "group", "sequential"] = "none"
    vae_tiling: bool = False
    decoder_checkpointing: bool = False
    vae_area: int = Field(1024 * 1024, ge=32 * 32)
    condition_area: int = Field(384 * 384, ge=28 * 28)
    vgg: str = "torchvision"  # VGG16 weights for the Gram loss and LPIPS: a file, or torchvision's


class Drawing(Params):
    """What the pipeline is asked to do for every frame."""

    prompt: str
    negative_prompt: str
    num_inference_steps: int = Field(ge=2)  # with 1, the scheduler's shift to its last sigma divides 0 by 0
    true_cfg_scale: float = Field(ge=0)


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


def load_pipeline(runtime: Runtime):
    """The stock `QwenImageEditPlusPipeline`, frozen, with its autoencoder in image mode.

    Raises:
        UserError: when the device is missing or the folder holds no pipeline.
    """
    check_device(runtime.device)
    if torch.is_inference_mode_enabled():
        raise UserError("the pipeline must be loaded outside torch.inference_mode(): its weights could never guide.")
    folder = Path(runtime.model)
    if (folder.exists() or runtime.model.startswith((".", "/"))) and not (folder / "model_index.json").is_file():
        raise UserError(f"{runtime.model}: no pipeline there (model_index.json is missing).")
    from diffusers import QwenImageEditPlusPipeline

    try:
        pipe = QwenImageEditPlusPipeline.from_pretrained(runtime.model, dtype=DTYPES[runtime.dtype])
    except OSError as error:
        raise UserError(f"{runtime.model}: the pipeline cannot be loaded ({str(error).splitlines()[0]}).") from error
    return prepare_pipeline(pipe, runtime)


def prepare_pipeline(pipe, runtime: Runtime):
    """Freeze a loaded pipeline and set it up for guidance on `runtime.device`."""
    for component in (pipe.transformer, pipe.vae, pipe.text_encoder):
        component.requires_grad_(False).eval()
    enable_image_mode(pipe.vae)
    pipe.prompt_template_encode_start_idx = template_length(pipe)
    # The callback may ask for any variable of the loop that is named here; the stock list refuses noise_pred.
    pipe._callback_tensor_inputs = [*type(pipe)._callback_tensor_inputs, *callback_inputs_all()]
    pipe.set_progress_bar_config(disable=True)
    if runtime.vae_tiling:
        pipe.vae.enable_tiling()
    if runtime.decoder_checkpointing:
        checkpoint_decoder(pipe.vae)
    place(pipe, runtime)
    return pipe


def callback_inputs_all() -> list[str]:
    """Every variable that some guidance rule asks for."""
    return callback_inputs(LossGuidanceConfig(estimate="backprop"))


def checkpoint_decoder(vae) -> None:
    """Recompute the decoder's up blocks in the backward pass: the autoencoder has no checkpointing of its own."""
    from torch.utils.checkpoint import checkpoint

    for block in vae.decoder.up_blocks:
        forward = block.forward

        def checkpointed(x, feat_cache=None, feat_idx=(0,), forward=forward):
            if feat_cache is None and torch.is_grad_enabled():
                return checkpoint(forward, x, use_reentrant=False)
            return forward(x, feat_cache, feat_idx)

        block.forward = checkpointed


def place(pipe, runtime: Runtime) -> None:
    """Move the pipeline to its device, or offload it.

    The autoencoder always stays on the device: the offload hooks fire on `vae.decode`, not on `vae.decoder`,
    which guidance calls, and it is small beside the transformer.
    """
    if runtime.offload == "none":
        pipe.to(runtime.device)
        return
    if torch.device(runtime.device).type == "cpu":
        raise UserError(f"offload {runtime.offload!r} moves weights to a GPU, but the device is cpu: use offload none.")
    pipe._exclude_from_cpu_offload = [*pipe._exclude_from_cpu_offload, "vae"]
    if runtime.offload == "model":
        pipe.enable_model_cpu_offload(device=runtime.device)
    elif runtime.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=runtime.device)
    else:
        device = torch.device(runtime.device)
        pipe.enable_group_offload(
            onload_device=device,
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
            exclude_modules=["vae"],
        )
    pipe.vae.to(runtime.device)


@dataclass
class Style:
    """The style reference of a video: the extractor and the first frame's Gram matrices."""

    extractor: VGGStyleExtractor
    reference: list[torch.Tensor]


class FrameEditor:
    """Draws frames of one video: the pipeline, the settings, and the style of the first frame.

    Args:
        first: the first frame; all frames have its size.
    """

    def __init__(
        self,
        pipe,
        runtime: Runtime,
        drawing: Drawing,
        guidance: LossGuidanceConfig,
        sizes: LossSizes,
        first: Image.Image,
    ):
        guidance.check_it_can_act(drawing.num_inference_steps)
        cell = pipe.vae_scale_factor * 2
        if min(first.size) < cell:
            raise UserError(
                f"the first frame is {first.width}x{first.height} pixels; at least {cell}x{cell} is needed "
                "(one latent cell)."
            )
        self.pipe, self.runtime, self.drawing, self.guidance, self.sizes = pipe, runtime, drawing, guidance, sizes
        self.size = first.size
        self.work_size = working_size(*first.size, runtime.vae_area)
        self.style = None
        if guidance.enabled and guidance.gram_scale > 0:
            extractor = VGGStyleExtractor(runtime.vgg, sizes.gram_size).to(runtime.device)
            self.style = Style(extractor, extractor(self.tensor(first)))

    def tensor(self, image: Image.Image) -> torch.Tensor:
        """A picture at the working size on the device, `[1, 3, h, w]` in [0, 1]."""
        if image.size != self.work_size:
            image = image.resize(self.work_size, Image.Resampling.LANCZOS)
        return to_tensor(image).to(self.runtime.device)

    def draw(
        self,
        edge: Image.Image,
        previous: Image.Image,
        edge_target: torch.Tensor,
        seed: int,
        on_step: Callable[[int], None] | None = None,
        keep_estimates: bool = False,
    ) -> tuple[Image.Image, GuidanceLog]:
        """Draw one frame from its edge picture (picture 1) and the previous frame (picture 2).

        Args:
            edge_target: `[1, 1, H, W]` in [0, 1], what the edge loss compares with.
            seed: the generator is made anew for every frame, so that off and on start from the same noise.

        Returns:
            the frame at the first frame's size, and what the guidance did.
        """
        width, height = self.work_size
        scale = self.pipe.vae_scale_factor
        callback, log = make_ttlg_callback(
            self.guidance,
            self.sizes,
            Targets(edge_target, self.tensor(previous), self.style.reference if self.style else None),
            (height // scale, width // scale),
            self.style.extractor if self.style else None,
            keep_estimates,
            on_step,
        )
        cfg = self.drawing.true_cfg_scale
        with working_areas(self.runtime.vae_area, self.runtime.condition_area):
            result = self.pipe(
                image=[edge.convert("RGB"), previous],
                prompt=self.drawing.prompt,
                negative_prompt=self.drawing.negative_prompt if cfg > 1 else None,
                true_cfg_scale=cfg,
                height=height,
                width=width,
                num_inference_steps=self.drawing.num_inference_steps,
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback_inputs(self.guidance),
                output_type="pt",
            )
        image = to_image(result.images[0].float())
        return image if image.size == self.size else image.resize(self.size, Image.Resampling.LANCZOS), log
