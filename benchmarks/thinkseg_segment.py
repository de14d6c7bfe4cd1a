"""What one session for all phrases saves, and what a long video costs in memory. Run: make bench

- four phrases as four prompts of one session, against four sessions: seconds on the tiny models, and multiplications
  of the published SAM3 at 1008 pixels (counted on the meta device, where nothing is computed);
- bytes held after 500 streamed frames, by our session and by the stock one, on `Sam3VideoModel` with random weights.

Times are medians of interleaved runs and are shown as ratios. Writes benchmarks/thinkseg_segment.md; `--smoke` runs
the same code in seconds and writes nothing.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from _sam3_video import build
from _timing import interleaved

from qwenlab.core.params import load
from qwenlab.thinkseg.clips import make_clip
from qwenlab.thinkseg.sam3 import ImageSegmenter, Sam3Params, VideoSegmenter, load_segmenter

HERE = Path(__file__).parent
PHRASES = ["red circle", "blue square", "green triangle", "yellow circle"]


def sessions(segmenter: ImageSegmenter | VideoSegmenter, frames: list[np.ndarray], repeats: int) -> dict[str, float]:
    """Seconds a frame with all phrases in one session, and with a session for each."""
    times = interleaved(
        {
            "one": lambda: list(segmenter.stream(frames, PHRASES)),
            "four": lambda: [list(segmenter.stream(frames, [phrase])) for phrase in PHRASES],
        },
        repeats,
    )
    return {name: seconds / len(frames) for name, seconds in times.items()}


def held(value: object, seen: set[int]) -> int:
    """Bytes of all tensors that can be reached from a session, each storage once."""
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if new else 0
    if isinstance(value, dict):
        return sum(held(one, seen) for one in value.values())
    if isinstance(value, list | tuple):
        return sum(held(one, seen) for one in value)
    return held(vars(value), seen) if hasattr(value, "__dict__") else 0


def memory(segmenter: VideoSegmenter, frames: list[np.ndarray], count: int, forget: bool) -> dict[int, int]:
    """Bytes that a session holds after 25, 50, ... frames of an endless video."""
    session, bytes_at = segmenter.session(PHRASES[:2]), {}
    for index in range(count):
        inputs = segmenter.processor(images=frames[index % len(frames)], return_tensors="pt")
        segmenter.model(inference_session=session, frame=inputs.pixel_values[0], frame_idx=index)
        if forget:
            segmenter.forget(session, index)
        if (index + 1) % 25 == 0:
            bytes_at[index + 1] = held(session, set())
    return bytes_at


def published_operations() -> tuple[float, float]:
    """Multiply-adds (10^12) of the published SAM3: the vision pass of a frame, and the detector for one prompt.

    The tracker is left out. The box-relative attention bias of the decoder cannot be counted on the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Sam3Config, Sam3Model

    with torch.device("meta"):
        model = Sam3Model(Sam3Config()).eval()
    text = torch.zeros(1, 32, 256, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as vision_flops:
        vision = model.get_vision_features(torch.zeros(1, 3, 1008, 1008, device="meta"))
    levels = list(vision.fpn_hidden_states[:3])
    with torch.no_grad(), FlopCounterMode(display=False) as prompt_flops:
        encoded = model.detr_encoder([levels[2]], text, [vision.fpn_position_encoding[2]])
        decoded = model.detr_decoder(encoded.last_hidden_state, text, encoded.pos_embeds_flattened)
        model.mask_decoder(decoded.intermediate_hidden_states[-1], levels, encoded.last_hidden_state, text)
    return vision_flops.get_total_flops() / 2e12, prompt_flops.get_total_flops() / 2e12


def measure(repeats: int, count: int) -> str:
    """Everything, as the page."""
    frames = list(make_clip("crossing", 0, 0).frames)[: 24 if repeats > 1 else 3]
    image = load_segmenter(load("thinkseg.sam3", Sam3Params))
    with tempfile.TemporaryDirectory() as folder:
        params = image.params.model_copy(
            update={
                "model": str(build(folder)),
                "score": 0.05,
                "keep_score": 0.05,
                "tidy_area": 0,
                "max_objects": 4,
                "frames_at_once": 1,
            }
        )
        video = load_segmenter(params)
        assert isinstance(video, VideoSegmenter)
        timed = {
            "Sam3Model stand-in": sessions(image, frames, repeats),
            "Sam3VideoModel": sessions(video, frames, repeats),
        }
        ours, stock = memory(video, frames, count, True), memory(video, frames, count, False)
    vision, prompt = published_operations()
    lines = [
        "# thinkseg: one session for all phrases, constant memory",
        "",
        f"`make bench` on {torch.get_num_threads()} CPU thread(s), torch {torch.__version__}, pictures of 64 pixels. "
        "`Sam3VideoModel` has random weights, as narrow as the library allows. Ratios are medians of interleaved runs.",
        "",
        "| four phrases | four sessions / one session | ms a frame, one session | four |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | **{t['four'] / t['one']:.2f}x** | {1e3 * t['one']:.1f} | {1e3 * t['four']:.1f} |"
        for name, t in timed.items()
    ]
    ratio = 4 * (vision + prompt) / (vision + 4 * prompt)
    lines += [
        f"| published SAM3 at 1008 pixels, multiply-adds of the detector | **{ratio:.2f}x** | - | - |",
        "",
        f"Published: {vision:.2f} x 10^12 multiply-adds for the vision pass of a frame, {prompt:.2f} for each prompt.",
        "",
        "| frames streamed | bytes held, ours | stock session |",
        "| --- | --- | --- |",
    ]
    shown = [frame for frame in ours if frame in (50, 100, 200, 300, 400, count)] or list(ours)
    lines += [f"| {frame} | {ours[frame]:,} | {stock[frame]:,} |" for frame in shown]
    first, last = shown[0], shown[-1]
    lines += [
        "",
        f"From frame {first} to {last}: ours x{ours[last] / ours[first]:.3f}, stock x{stock[last] / stock[first]:.2f}.",
        "Outputs of both are bit for bit the same (tests/thinkseg/test_sam3_video.py).",
    ]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--smoke", is_flag=True, help="Run in seconds, write nothing.")
def main(smoke: bool) -> None:
    from qwenlab.core.io import write_text

    torch.set_num_threads(1)
    page = measure(1 if smoke else 7, 25 if smoke else 500)
    click.echo(page)
    if not smoke:
        write_text(HERE / "thinkseg_segment.md", page)


if __name__ == "__main__":
    main()
