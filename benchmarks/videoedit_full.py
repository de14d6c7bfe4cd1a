"""What guidance costs at full size: the published dimensions with random weights, on one GPU. Run: make bench

Speed and memory do not depend on the values of the weights, so none are downloaded. Prints seconds per denoising step
and peak memory with guidance off and on at about one megapixel, and appends them to benchmarks/videoedit_full.md.
Without a CUDA GPU it says so and does nothing; `--smoke` runs the same code in small on the CPU.
"""

import itertools
import statistics
import time
from pathlib import Path

import click
import torch
from PIL import Image

HERE = Path(__file__).parent
# Qwen2.5-VL-7B, the text encoder of Qwen-Image-Edit-2509.
TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {"hidden_size": 1280, "out_hidden_size": 3584, "depth": 32, "num_heads": 16}


def build(device: str, dtype: torch.dtype, smoke: bool):
    """A random `QwenImageEditPlusPipeline`; tokenizer, processor and scheduler come from the stand-in."""
    from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    small = QwenImageEditPlusPipeline.from_pretrained("data/standins/image", dtype=torch.float32)
    if smoke:
        return small
    ours = small.text_encoder.config
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": ours.text_config.vocab_size, "bos_token_id": None},
        vision_config=VISION,
        **{name: getattr(ours, name) for name in ("image_token_id", "video_token_id", "vision_start_token_id")},
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        parts = {
            "transformer": QwenImageTransformer2DModel(),
            "vae": AutoencoderKLQwenImage(),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        }
    torch.set_default_dtype(default)
    return QwenImageEditPlusPipeline(
        scheduler=small.scheduler, tokenizer=small.tokenizer, processor=small.processor, **parts
    )


@click.command()
@click.option("--smoke", is_flag=True, help="The stand-in on the CPU instead.")
@click.option("--steps", default=6, show_default=True)
def main(smoke: bool, steps: int) -> None:
    """Seconds per step and peak memory, guidance off and on."""
    if not smoke and not torch.cuda.is_available():
        print("benchmarks/videoedit_full.py: needs a CUDA GPU with about 80 GB; skipped.")
        return
    from qwenlab.core.media import to_tensor
    from qwenlab.core.params import load_profile
    from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
    from qwenlab.videoedit.pipeline import Drawing, FrameEditor, Runtime, prepare_pipeline
    from qwenlab.videoedit.source import edge_picture

    profile = load_profile("tiny" if smoke else "full")["videoedit"]
    runtime, sizes = Runtime(**profile["runtime"]), LossSizes(**profile["sizes"])
    pipe = prepare_pipeline(build(runtime.device, torch.bfloat16, smoke), runtime)
    size = profile["prepare"]["width"], profile["prepare"]["height"]
    first = Image.effect_noise(size, 64).convert("RGB")
    edge = edge_picture(first)
    drawing = Drawing(prompt="x", negative_prompt=" ", num_inference_steps=steps, true_cfg_scale=4.0)
    lines = [
        f"{torch.cuda.get_device_name() if not smoke else 'CPU smoke run'}, {size[0]}x{size[1]} px, {runtime.dtype}",
        "",
        "| guidance | seconds per step | peak memory |",
        "| --- | --- | --- |",
    ]
    rules = {
        "off": {"enabled": False},
        "edge": {"edge_scale": 1.0},
        "edge + Gram": {"edge_scale": 1.0, "gram_scale": 1.0},
    }
    for name, rule in rules.items():
        editor = FrameEditor(pipe, runtime, drawing, LossGuidanceConfig(**rule), sizes, first)
        if not smoke:
            torch.cuda.reset_peak_memory_stats()
        marks: list[float] = []

        def mark(step: int, marks: list[float] = marks) -> None:
            if not smoke:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        editor.draw(edge, first, to_tensor(edge)[:, :1], 0, on_step=mark)
        seconds = statistics.median(b - a for a, b in itertools.pairwise(marks))
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if not smoke else "-"
        lines.append(f"| {name} | {seconds:.3f} | {memory} |")
    print("\n".join(lines))
    if not smoke:
        with open(HERE / "videoedit_full.md", "a", encoding="utf-8") as file:
            file.write("\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
