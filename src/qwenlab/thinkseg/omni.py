"""The thinker that watches: `Qwen2_5OmniThinkerForConditionalGeneration` (full profile: HumanOmniV2).

Video, sound and question go in; `<context>...</context><think>...</think><answer>...</answer>` comes out. Frames are
sampled here, at `fps` a second, and sound is resampled to 16 kHz by PyAV: the processor's own default would blow a
small frame up to 800 tokens, and would load both through decoders that need not be installed.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.thinkseg.omni_prompt import chat_text
from qwenlab.thinkseg.records import Record
from qwenlab.thinkseg.sound import read_sound
from qwenlab.thinkseg.video import read_frames, video_info

RATE = 16000  # samples a second that the sound tower expects


class Thinker(Params):
    """The model, and what it is shown."""

    model: str = Field(description="folder or hub id")
    device: str
    dtype: str = Field(description="float32 or bfloat16")
    processes: int = Field(ge=1, description="shards at once, started by accelerate")
    splits: list[str] = Field(description="records that it thinks about: label, test")
    batch: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    fps: float = Field(gt=0, description="frames it sees of a second")
    max_frames: int = Field(ge=2)
    pixels: int = Field(ge=784, description="of a frame, at most")


def sampled(path: str | Path, fps: float, max_frames: int) -> tuple[list[np.ndarray], float]:
    """(frames uint8 `[H, W, 3]` evenly over the video, frames a second that this amounts to).

    Their number is even, and at least two: a temporal patch is two frames. A video of one frame shows it twice.
    """
    info = video_info(path)
    step = max(1.0, info.fps / fps)
    picked: list[np.ndarray] = []
    due = 0.0
    for index, frame in enumerate(read_frames(path)):
        if index >= due - 1e-6:
            picked.append(frame)
            due += step
    if len(picked) > max_frames:  # a long video: as many, evenly
        keep = np.linspace(0, len(picked) - 1, max_frames).round().astype(int)
        step *= (len(picked) - 1) / (max_frames - 1)
        picked = [picked[index] for index in keep]
    if len(picked) % 2:
        picked.append(picked[-1])
    return picked, info.fps / step


def load_thinker(thinker: Thinker) -> "OmniThinker":
    """Model and processor.

    Raises:
        UserError: when they cannot be loaded.
    """
    from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

    try:
        processor = Qwen2_5OmniProcessor.from_pretrained(thinker.model)
        model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            thinker.model, dtype=getattr(torch, thinker.dtype)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{thinker.model}: cannot be loaded as the thinker ({error}).") from error
    return OmniThinker(thinker, model.to(thinker.device).eval(), processor)


class OmniThinker:
    """Thinks about records, a batch at a time."""

    def __init__(self, thinker: Thinker, model, processor):
        self.thinker, self.model, self.processor = thinker, model, processor

    def inputs(self, records: list[Record]):
        """What the model takes, padded on the left."""
        texts, videos, sounds, rate = [], [], [], self.thinker.fps
        for record in records:
            frames, rate = sampled(record.video, self.thinker.fps, self.thinker.max_frames)
            sound = read_sound(record.video, RATE)
            texts.append(chat_text(record.question, record.options, sound is not None))
            videos.append(np.stack(frames).transpose(0, 3, 1, 2))
            sounds += [] if sound is None else [sound]
        size = {"shortest_edge": min(self.thinker.pixels, 56 * 56), "longest_edge": self.thinker.pixels}
        return self.processor(
            text=texts, videos=videos, audio=sounds or None, return_tensors="pt", padding=True,
            videos_kwargs={"size": size, "do_sample_frames": False, "fps": rate, "cap_pixels_per_frame": False},
        )  # fmt: skip

    @torch.no_grad()
    def __call__(self, records: list[Record]) -> list[str]:
        """One text a record, greedy."""
        inputs = self.inputs(records).to(self.model.device)
        if "input_features" in inputs:
            inputs["input_features"] = inputs["input_features"].to(self.model.dtype)
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(self.model.dtype)
        tokenizer = self.processor.tokenizer
        out = self.model.generate(
            **inputs, max_new_tokens=self.thinker.max_new_tokens, do_sample=False, temperature=None, top_p=None,
            top_k=None, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
