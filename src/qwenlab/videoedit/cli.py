"""`qwenlab edit`: edit a video from its first frame and a sequence of edge pictures (seed 001, section 2).

Every flag exists with underscores, as the seed writes it, and with dashes. Defaults are the seed's, except where its
default was measured not to work: the step is normalised by its RMS and taken on the x0 estimate
(`--ttlg_step l2 --ttlg_estimate latents` is the seed's rule).
"""

from pathlib import Path

import click
from click.core import ParameterSource

from qwenlab.core.errors import UserError

PROMPT = "将图 2 按图 1 所勾勒出的精致形状进行变形，生成一张图像输出"
GUIDANCE_FLAGS = ("lr", "every", "start_step", "end_step", "last_steps", "inner_steps", "estimate", "step")


def flag(name: str, **kwargs):
    """An option spelled with underscores and with dashes."""
    names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    if kwargs.get("default") is not None and not kwargs.get("is_flag"):
        kwargs.setdefault("show_default", True)
    return click.option(name, *names, **kwargs)


def path_flag(name: str, help: str):
    return flag(name, type=click.Path(path_type=Path), help=help)


@click.command(context_settings={"max_content_width": 110})
@path_flag("init_frame", "First frame (frame folder mode).")
@path_flag("edge_frames_dir", "Folder of edge pictures, one a generated frame, in natural order.")
@path_flag("out_frames_dir", "Folder for the output frames. With --out_video alone: a folder beside the video.")
@path_flag("rgb_video", "Input video; its first frame is the first frame (video mode).")
@path_flag("edge_video", "Edge video; its frame 0 belongs to video frame 1. Missing: derived from --rgb_video.")
@path_flag("out_video", "Output mp4.")
@flag("fps", type=float, default=8.0, help="Frame rate of --out_video.")
@flag("edge_kind", type=click.Choice(["sobel", "laplacian"]), default="sobel", help="Edge filter.")
@flag("edge_resize", type=click.Choice(["nearest", "area"]), default="area", help="How edge pictures are resized.")
@flag(
    "edge_target",
    type=click.Choice(["picture", "sobel"]),
    default="picture",
    help="The edge loss compares with the edge picture itself, or with the edge filter run on it.",
)
@flag("profile", help="Take model, device, dtype, sizes and steps from profiles/NAME.yaml unless given here.")
@flag("model_id", default="Qwen/Qwen-Image-Edit-2509", help="Hub id or folder of a QwenImageEditPlusPipeline.")
@flag("prompt", default=PROMPT, help="Instruction.")
@flag("negative_prompt", default=" ", show_default=False, help='Negative prompt.  [default: " "]')
@flag("num_inference_steps", type=click.IntRange(2), default=50, help="Denoising steps; the scheduler needs 2.")
@flag("true_cfg_scale", type=click.FloatRange(0), default=4.0, help="Classifier-free guidance; 1 switches it off.")
@flag("seed", type=int, default=0, help="The same noise for every frame comes from it.")
@flag("device", default="cuda", help="cuda, cuda:1, mps or cpu.")
@flag("dtype", type=click.Choice(["bf16", "fp16", "fp32"]), default="bf16", help="Weights and activations.")
@flag("offload", type=click.Choice(["none", "model", "group", "sequential"]), default="none", help="Saves GPU memory.")
@flag("vae_tiling", is_flag=True, help="Decode the final picture in tiles.")
@flag("decoder_checkpointing", is_flag=True, help="Less memory for the gradient through the decoder.")
@flag("max_frames", type=int, help="Output frames at most, the first included.")
@flag("ttlg_edge_scale", type=click.FloatRange(0), default=0.0, help="Weight of the edge loss; 0 is off.")
@flag(
    "ttlg_gram_scale",
    type=click.FloatRange(0),
    default=0.0,
    help="Weight of the Gram style loss; its scale depends on the VGG16 (near 5 with hed_bsds500.h5).",
)
@flag(
    "ttlg_temporal_scale",
    type=click.FloatRange(0),
    default=0.0,
    help="Weight of the temporal loss. It has no optical flow: strong values smear motion.",
)
@flag("ttlg_lr", type=float, default=0.05, help="Step size, in units of a latent with --ttlg_step rms.")
@flag("ttlg_every", type=click.IntRange(1), default=1, help="Guide every so many denoising steps.")
@flag("ttlg_start_step", type=click.IntRange(0), help="First guided step.")
@flag("ttlg_end_step", type=click.IntRange(1), help="First step after the guided ones.")
@flag("ttlg_last_steps", type=click.IntRange(1), help="Guide the last so many steps only.")
@flag("ttlg_inner_steps", type=click.IntRange(1), default=1, help="Gradient steps per denoising step.")
@flag(
    "ttlg_estimate",
    type=click.Choice(["x0", "latents", "backprop", "spherical"]),
    default="x0",
    help="What is decoded and moved; `latents` is the seed's fallback rule.",
)
@flag(
    "ttlg_step",
    type=click.Choice(["rms", "l2", "adam"]),
    default="rms",
    help="How the gradient is normalised; l2 is the seed's rule.",
)
@flag("ttlg_edge_size", type=click.IntRange(8), help="Long side (pixels) the edge loss is computed at.")
@flag("ttlg_gram_size", type=click.IntRange(32), help="Long side (pixels) VGG sees.")
@flag("ttlg_decode_shrink", type=click.IntRange(1), default=1, help="Decode for the losses at 1/N of the size.")
@flag("vgg_weights", default="torchvision", help="VGG16 for Gram and LPIPS: torchvision, or a weights file.")
@path_flag("metrics_out", "CSV of per-frame metrics.")
@path_flag("save_debug_dir", "Folder for edge maps and intermediate estimates of every frame.")
@flag("resume", is_flag=True, help="Continue a killed run at its next frame.")
@flag("self_test", is_flag=True, help="Check that every loss has a gradient, without loading a model, and exit.")
@click.pass_context
def edit(ctx: click.Context, **options) -> None:
    """Edit a video: the first frame is kept, every later frame follows its edge picture.

    Two input modes: --init_frame with --edge_frames_dir, or --rgb_video (with --edge_video, or edges derived).
    """
    if options["self_test"]:
        from qwenlab.videoedit.selftest import self_test

        for line in self_test(gram=options["ttlg_gram_scale"] > 0):
            click.echo(line)
        click.echo("self test passed")
        return
    job = make_job(ctx, options)
    report = run_with_bars(job)
    click.echo(
        f"{report.frames} frames in {job.frames_dir}"
        + (f", video {job.out_video}" if job.out_video else "")
        + (f"; continued at frame {report.resumed_at}" if report.resumed_at else "")
        + f"; {report.guided_steps} guided steps"
    )
    if report.skipped_nonfinite:
        click.echo(f"warning: {report.skipped_nonfinite} guidance steps were skipped: gradient not finite.", err=True)


def given(ctx: click.Context, name: str) -> bool:
    """Whether an option was written on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def make_job(ctx: click.Context, options: dict):
    """Turn the options into a checked `Job`.

    Raises:
        UserError: contradicting or missing options.
    """
    scales = ("ttlg_edge_scale", "ttlg_gram_scale", "ttlg_temporal_scale")
    enabled = any(options[name] > 0 for name in scales)
    idle = [f"--ttlg_{name}" for name in GUIDANCE_FLAGS if given(ctx, f"ttlg_{name}")]
    if idle and not enabled:
        raise UserError(f"{', '.join(idle)} can never act: all of --{', --'.join(scales)} are 0.")
    if options["ttlg_lr"] <= 0:
        raise UserError(f"--ttlg_lr is {options['ttlg_lr']}; it must be above 0.")
    if options["out_frames_dir"] is None and options["out_video"] is None:
        raise UserError("nothing to write to: give --out_frames_dir, --out_video, or both.")
    from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
    from qwenlab.videoedit.edit import Job
    from qwenlab.videoedit.pipeline import Drawing, Runtime, check_device
    from qwenlab.videoedit.source import Source

    values = {**options, **profile_values(ctx, options["profile"])}
    check_device(values["device"])
    guidance = LossGuidanceConfig(
        enabled=enabled,
        **{name: options[f"ttlg_{name}"] for name in GUIDANCE_FLAGS},
        **{name.removeprefix("ttlg_"): options[name] for name in scales},
        edge_kind=options["edge_kind"],
    )
    runtime = {name: values[name] for name in Runtime.model_fields if name in values}
    return Job(
        source=Source(
            **{k: options[k] for k in ("init_frame", "edge_frames_dir", "rgb_video", "edge_video", "max_frames")},
            edge_kind=options["edge_kind"],
            edge_resize=options["edge_resize"],
        ),
        drawing=Drawing(**{name: values[name] for name in Drawing.model_fields}),
        guidance=guidance,
        sizes=LossSizes(
            edge_size=values["ttlg_edge_size"],
            gram_size=values["ttlg_gram_size"],
            decode_shrink=values["ttlg_decode_shrink"],
        ),
        runtime=Runtime(**{"model": values["model_id"], "vgg": values["vgg_weights"], **runtime}),
        seed=options["seed"],
        frames_dir=options["out_frames_dir"] or options["out_video"].with_name(options["out_video"].stem + "_frames"),
        out_video=options["out_video"],
        fps=options["fps"],
        metrics_out=options["metrics_out"],
        debug_dir=options["save_debug_dir"],
        edge_target=options["edge_target"],
        resume=options["resume"],
    )


def profile_values(ctx: click.Context, name: str | None) -> dict:
    """Values of profiles/NAME.yaml in the options' names, without those given on the command line."""
    if name is None:
        return {}
    from qwenlab.core.params import load_profile

    section = load_profile(name).get("videoedit", {})
    runtime, sizes = dict(section.get("runtime", {})), section.get("sizes", {})
    found = {"model_id": runtime.pop("model"), "vgg_weights": runtime.pop("vgg")} if runtime else {}
    found |= runtime | section.get("edit", {}) | {f"ttlg_{key}": value for key, value in sizes.items()}
    return {key: value for key, value in found.items() if not given(ctx, key)}


def run_with_bars(job):
    """Run the job with two progress bars: frames, and denoising steps within the frame."""
    from rich.console import Console

    from qwenlab.core.progress import progress
    from qwenlab.videoedit.edit import run
    from qwenlab.videoedit.pipeline import load_pipeline

    console = Console(stderr=True)
    with progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        frames = bars.add_task("frames", total=None)
        steps = bars.add_task("steps", total=job.drawing.num_inference_steps)
        return run(
            job,
            load_pipeline,
            on_frame=lambda done, total: bars.update(frames, completed=done, total=total),
            on_step=lambda step: bars.update(steps, completed=step + 1),
        )
