"""Test-time loss guidance through the stock `callback_on_step_end` of an unmodified diffusers pipeline.

After every denoising step the callback decodes an estimate of the picture, measures the losses, and moves the
latents against the gradient. What is decoded and how the step is taken are choices (`estimate`, `step`):

x0         the clean estimate x0 = latents - sigma * noise_pred. The velocity is taken as a constant, so
           d x0 / d latents is the identity and nothing is backpropagated through the transformer (MPGD, FlowChef).
latents    the noisy latents themselves: the fallback of seed 001, 4.5, meaningful in the last steps only.
backprop   x0 from a second forward, with gradients through the transformer (FreeDoM).
spherical  the gradient turns the noise part along its sphere (DSG); nothing moves where sigma is 0.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from qwenlab.core.edges import edge_loss
from qwenlab.core.errors import UserError
from qwenlab.core.image_vae import decode_latents, unpack_latents
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.losses import VGGStyleExtractor, gram_loss, resize_to, temporal_loss


@dataclass
class Targets:
    """What a frame is pulled towards. Pictures are `[1, 3 or 1, H, W]` in [0, 1] at the working size."""

    edge: torch.Tensor
    previous: torch.Tensor
    style: list[torch.Tensor] | None = None  # Gram matrices of the first frame, computed once a video


@dataclass
class GuidanceLog:
    """What happened while one frame was drawn."""

    applied: int = 0
    skipped_nonfinite: int = 0
    estimates: list[torch.Tensor] = field(default_factory=list)  # only filled for the debug folder


@contextmanager
def gradients_on():
    """Gradients inside the pipeline's `no_grad`, and even inside a caller's `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def total_loss(
    images: torch.Tensor,
    targets: Targets,
    config: LossGuidanceConfig,
    sizes: LossSizes,
    style: VGGStyleExtractor | None,
) -> torch.Tensor:
    """Weighted sum of the losses on `images` `[1, 3, H, W]`."""
    loss = images.new_zeros(())
    if config.edge_scale > 0:
        small = resize_to(images, sizes.edge_size)
        loss = loss + config.edge_scale * edge_loss(small, targets.edge.to(images), config.edge_kind)
    if config.gram_scale > 0:
        assert style is not None and targets.style is not None
        # VGG extrapolates badly outside [0, 1]; a soft overshoot keeps its gradient in the other losses.
        loss = loss + config.gram_scale * gram_loss(style(images.clamp(0, 1)), targets.style)
    if config.temporal_scale > 0:
        previous = F.interpolate(targets.previous.to(images), images.shape[-2:], mode="area")
        loss = loss + config.temporal_scale * temporal_loss(images, previous)
    return loss


def step_direction(gradient: torch.Tensor, rule: str, state: dict, eps: float = 1e-12) -> torch.Tensor:
    """Normalise a gradient. "rms" makes each element about 1, whatever the size of the latents; "l2" makes the
    whole vector 1 (the seed's rule: at 1024 px in bf16 the change then rounds to nothing); "adam" keeps moments."""
    if rule == "rms":
        return gradient / (gradient.square().mean().sqrt() + eps)
    if rule == "l2":
        return gradient / (gradient.norm() + eps)
    state["n"] = state.get("n", 0) + 1
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.99 * state.get("v", 0) + 0.01 * gradient.square()
    return (state["m"] / (1 - 0.9 ** state["n"])) / ((state["v"] / (1 - 0.99 ** state["n"])).sqrt() + eps)


def make_ttlg_callback(
    config: LossGuidanceConfig,
    sizes: LossSizes,
    targets: Targets,
    latent_size: tuple[int, int],
    style: VGGStyleExtractor | None = None,
    keep_estimates: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Callable, GuidanceLog]:
    """Build `callback_on_step_end` for one frame.

    Args:
        latent_size: `(h, w)` of the unpacked latents.
        style: needed when `gram_scale > 0`.
        keep_estimates: keep the decoded estimate of every guided step in the log.
        on_step: told the step number after every step (progress bars).

    Returns:
        the callback and the log it fills. Pass `callback_on_step_end_tensor_inputs=CALLBACK_INPUTS`.

    Raises (from the callback):
        UserError: when the model's weights are inference tensors, so that no gradient can exist.
    """
    log = GuidanceLog()
    state: dict = {}  # moments of "adam"

    def loss_of(pipe, estimate: torch.Tensor) -> torch.Tensor:
        latents = unpack_latents(estimate, *latent_size)
        if sizes.decode_shrink > 1:
            small = F.interpolate(latents[:, :, 0], scale_factor=1 / sizes.decode_shrink, mode="area")
            latents = small.unsqueeze(2)
        images = decode_latents(pipe.vae, latents).float()
        if keep_estimates:
            log.estimates.append(images.detach().cpu())
        return total_loss(images, targets, config, sizes, style)

    def gradient(pipe, leaf: torch.Tensor, estimate_of: Callable[[torch.Tensor], torch.Tensor]):
        try:
            loss = loss_of(pipe, estimate_of(leaf))
            return torch.autograd.grad(loss, leaf)[0]
        except RuntimeError as error:
            if "nference tensor" in str(error):
                raise UserError(
                    "guidance needs gradients, but the pipeline was loaded under torch.inference_mode(): "
                    "load it outside, and use torch.no_grad() instead."
                ) from error
            raise

    def callback(pipe, step: int, timestep, kwargs: dict) -> dict:
        if config.acts_at(step, pipe.num_timesteps):
            with gradients_on():
                kwargs["latents"] = guide(pipe, step, kwargs)
        if on_step is not None:
            on_step(step)
        return {"latents": kwargs["latents"]}

    def guide(pipe, step: int, kwargs: dict) -> torch.Tensor:
        original = kwargs["latents"]
        latents = original.detach().clone().float()
        sigma = float(pipe.scheduler.sigmas[step + 1])
        noise_pred = kwargs["noise_pred"].detach().clone().float()
        for _ in range(config.inner_steps):
            leaf = latents.clone().requires_grad_(True)
            if config.estimate == "latents":
                grad = gradient(pipe, leaf, lambda x: x)
            elif config.estimate == "backprop" and sigma > 0:
                grad = gradient(pipe, leaf, lambda x: x - sigma * predict_velocity(pipe, x, sigma, kwargs))
            else:
                grad = gradient(pipe, leaf, lambda x: x - sigma * noise_pred)
            if not torch.isfinite(grad).all():
                log.skipped_nonfinite += 1
                break
            if config.estimate == "spherical":
                latents = turn_noise(latents, noise_pred, sigma, grad, config.lr)
            else:
                latents = latents - config.lr * step_direction(grad, config.step, state)
            log.applied += 1
        return latents.to(original.dtype)

    return callback, log


# Names of the denoising loop's variables the callback asks for; `prepare_callbacks` allows them.
CALLBACK_INPUTS = ["latents", "noise_pred"]
BACKPROP_INPUTS = [
    *CALLBACK_INPUTS, "image_latents", "prompt_embeds", "prompt_embeds_mask", "negative_prompt_embeds",
    "negative_prompt_embeds_mask", "img_shapes", "true_cfg_scale", "do_true_cfg",
]  # fmt: skip


def callback_inputs(config: LossGuidanceConfig) -> list[str]:
    """Variables the callback of this configuration needs."""
    return BACKPROP_INPUTS if config.estimate == "backprop" else CALLBACK_INPUTS


def predict_velocity(pipe, latents: torch.Tensor, sigma: float, kwargs: dict) -> torch.Tensor:
    """The pipeline's own prediction (with its classifier-free guidance and rescaling), with gradients."""

    def forward(embeds: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        hidden = torch.cat([latents.to(embeds.dtype), kwargs["image_latents"]], 1).clone()
        out = pipe.transformer(
            hidden_states=hidden,
            timestep=torch.full((1,), sigma, device=hidden.device, dtype=hidden.dtype),
            encoder_hidden_states=embeds.clone(),
            encoder_hidden_states_mask=None if mask is None else mask.clone(),
            img_shapes=kwargs["img_shapes"],
            return_dict=False,
        )[0]
        return out[:, : latents.shape[1]].float()

    cond = forward(kwargs["prompt_embeds"], kwargs["prompt_embeds_mask"])
    if not kwargs["do_true_cfg"]:
        return cond
    uncond = forward(kwargs["negative_prompt_embeds"], kwargs["negative_prompt_embeds_mask"])
    combined = uncond + kwargs["true_cfg_scale"] * (cond - uncond)
    return combined * cond.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)


def turn_noise(
    latents: torch.Tensor, noise_pred: torch.Tensor, sigma: float, grad: torch.Tensor, rate: float
) -> torch.Tensor:
    """Spherical step (DSG, Yang et al., 2024) for a flow model: turn the noise estimate towards minus the gradient
    by mixing rate `rate`, keep its length, and put the latents together again."""
    x0 = latents - sigma * noise_pred
    noise = x0 + noise_pred
    mixed = (1 - rate) * noise / noise.norm() - rate * grad / (grad.norm() + 1e-12)
    turned = mixed / mixed.norm() * noise.norm()
    return (1 - sigma) * x0 + sigma * turned
