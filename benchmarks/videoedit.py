"""What guidance costs and what it buys, side by side in one process. Run: make bench

Three questions, answered on the stand-in (tiny profile): how much longer a guided frame takes, how much faster the
image-mode decoder is than the stock one, and how the guidance rules compare at their cost. Times are medians of
interleaved runs and are shown as ratios; the rules are compared on carphone.mp4, the clip the settings were chosen
on (the evaluation clip belongs to `dvc repro`). Writes benchmarks/videoedit.md.
"""

import statistics
import tempfile
from pathlib import Path

import click
import torch
from _timing import interleaved

HERE = Path(__file__).parent
RULES: dict[str, dict] = {
    "off": {"enabled": False},
    "seed rule (raw latents, L2, last 5)": {"estimate": "latents", "step": "l2", "lr": 0.05, "last_steps": 5},
    "raw latents, every step, RMS": {"estimate": "latents", "lr": 0.1},
    "x0, last 5, RMS": {"lr": 0.05, "last_steps": 5},
    "x0, every step, RMS": {"lr": 0.1},
    "x0, 3 inner steps": {"lr": 0.06, "inner_steps": 3},
    "x0 + Gram": {"lr": 0.1, "gram_scale": 0.006},
    "x0 + Gram + temporal, 3 inner steps (ours)": {
        "lr": 0.05,
        "inner_steps": 3,
        "gram_scale": 0.004,
        "temporal_scale": 0.2,
    },
    "x0, Adam": {"lr": 0.05, "step": "adam"},
    "x0 + temporal": {"lr": 0.1, "temporal_scale": 0.5},
    "backprop through the transformer (FreeDoM)": {"estimate": "backprop", "lr": 0.1},
    "spherical step (DSG)": {"estimate": "spherical", "lr": 0.2},
}


def decoders(repeats: int) -> list[str]:
    """Stock against image-mode decoding, forward and forward + backward, stand-in and real channel widths."""
    from diffusers import AutoencoderKLQwenImage

    from qwenlab.core.image_vae import disable_image_mode, enable_image_mode

    lines = ["| decoder | stock | image mode | ratio |", "| --- | --- | --- | --- |"]
    tiny = AutoencoderKLQwenImage.from_pretrained("data/standins/image", subfolder="vae")
    real = AutoencoderKLQwenImage()  # the published dimensions, random weights
    for label, vae, side in (("stand-in, 96 px", tiny, 24), ("published size, 128 px", real, 16)):
        vae.requires_grad_(False)
        latents = torch.randn(1, vae.config.z_dim, 1, side, side)

        def run(mode: str, backward: bool, vae=vae, latents=latents) -> None:
            (enable_image_mode if mode == "image" else disable_image_mode)(vae)
            leaf = latents.clone().requires_grad_(backward)
            with torch.set_grad_enabled(backward):
                out = vae.decode(leaf).sample
                if backward:
                    torch.autograd.grad(out.sum(), leaf)

        for what, backward in (("forward", False), ("forward + gradient", True)):
            calls = {mode: lambda m=mode, b=backward: run(m, b) for mode in ("stock", "image")}
            seconds = interleaved(calls, repeats)
            ratio = seconds["stock"] / seconds["image"]
            lines.append(
                f"| {label}, {what} | {seconds['stock'] * 1e3:.0f} ms | {seconds['image'] * 1e3:.0f} ms "
                f"| **{ratio:.1f}x** |"
            )
    return lines


def load_clip(clip: str, width: int, height: int):
    """Frames and edge pictures of the tuning clip."""
    from qwenlab.core.media import center_crop, read_video
    from qwenlab.videoedit.source import edge_picture

    frames = [center_crop(f, width, height) for f in read_video(clip, 0, 6, 9)]
    return frames, [edge_picture(f) for f in frames[1:]]


def rules(chosen: dict[str, dict], clip: str, seed: int, repeats: int) -> list[str]:
    """Roll the tuning clip out under every rule; quality relative to off, cost relative to off."""
    from qwenlab.core.media import to_tensor
    from qwenlab.core.params import load
    from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
    from qwenlab.videoedit.pipeline import Drawing, FrameEditor, Runtime, load_pipeline
    from qwenlab.videoedit.scores import Scorer

    runtime, drawing = load("videoedit.runtime", Runtime), load("videoedit.edit", Drawing)
    sizes, pipe = load("videoedit.sizes", LossSizes), load_pipeline(runtime)
    frames, pictures = load_clip(clip, 96, 64)
    scorer = Scorer(runtime.vgg, frames[0], hed="data/assets/hed_bsds500.h5")
    editors = {
        name: FrameEditor(pipe, runtime, drawing, LossGuidanceConfig(**{"edge_scale": 1.0, **rule}), sizes, frames[0])
        for name, rule in chosen.items()
    }
    target = to_tensor(pictures[0])[:, :1]
    draws = {n: lambda e=e: e.draw(pictures[0], frames[0], target, seed) for n, e in editors.items()}
    seconds = interleaved(draws, repeats)
    means: dict[str, dict[str, float]] = {}
    for name, editor in editors.items():
        previous, scores = frames[0], []
        for picture, truth in zip(pictures, frames[1:], strict=True):
            target = to_tensor(picture)[:, :1]
            drawn, _ = editor.draw(picture, previous, target, seed)
            scores.append(scorer.score(drawn, previous, target, truth=truth))
            previous = drawn
        means[name] = {key: statistics.fmean(row[key] for row in scores) for key in scores[0]}
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in means[name].items()), flush=True)
    off, base = means["off"], seconds["off"]
    lines = ["| rule | edge | Gram | HED edge | PSNR | time |", "| --- | --- | --- | --- | --- | --- |"]
    for name, mean in means.items():
        ratios = [f"{mean[k] / off[k]:.3f}" for k in ("edge_loss", "gram_loss", "hed_edge_loss")]
        lines.append(f"| {name} | {' | '.join(ratios)} | {mean['psnr']:.1f} dB | {seconds[name] / base:.2f}x |")
    return lines


@click.command()
@click.option("--repeats", default=7, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--clip", default="data/assets/carphone.mp4", show_default=True)
@click.option("--only", help="Comma-separated parts of rule names to compare; no file is written then.")
def main(repeats: int, seed: int, clip: str, only: str | None) -> None:
    """Compare guidance rules and decoders; writes benchmarks/videoedit.md."""
    chosen = {n: r for n, r in RULES.items() if n == "off" or not only or any(o in n for o in only.split(","))}
    table = rules(chosen, clip, seed, repeats)
    print("\n".join(table))
    if only:
        return
    text = [
        "# videoedit: what guidance costs and what it buys",
        "",
        f"`make bench` on {torch.get_num_threads()} CPU threads, stand-in at 96x64 px, carphone.mp4, 8 frames rolled "
        f"out, 10 steps, seed {seed}. Losses and times are relative to off.",
        "",
        *table,
        "",
        *decoders(repeats),
        "",
    ]
    with tempfile.NamedTemporaryFile("w", dir=HERE, delete=False, encoding="utf-8") as file:
        file.write("\n".join(text))
    Path(file.name).replace(HERE / "videoedit.md")


if __name__ == "__main__":
    main()
