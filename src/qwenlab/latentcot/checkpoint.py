"""Checkpoints: loading, freezing the vision tower, and the hash that ties teacher files to what made them."""

import hashlib
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params


class Runtime(Params):
    """Where and with what the system runs."""

    model: str
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager"]
    processes: int = Field(ge=1, description="training processes of one seed, started by accelerate")
    seeds_at_once: int = Field(ge=1, description="seeds side by side, on a thread each")
    gradient_checkpointing: bool  # of steps without latents; a latent forward needs the KV cache
    fsdp: str = Field(description="TrainingArguments.fsdp, such as 'full_shard auto_wrap'; empty for none")


def load(folder: str | Path, runtime: Runtime):
    """`(model, processor)` of a checkpoint folder or hub name; the vision tower is frozen.

    Raises:
        UserError: when it cannot be loaded.
    """
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    try:
        processor = AutoProcessor.from_pretrained(str(folder))
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            str(folder), dtype=getattr(torch, runtime.dtype), attn_implementation=runtime.attention
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded as a Qwen2.5-VL checkpoint ({error}).") from error
    freeze_tower(model)
    return model.to(runtime.device), processor


def freeze_tower(model) -> None:
    """No gradient in the vision tower. It is `model.model.visual`: published code froze `model.visual`, which does not
    exist in transformers 5, and so froze nothing."""
    tower = model.model.visual
    tower.requires_grad_(False)
    if any(parameter.requires_grad for parameter in tower.parameters()):
        raise RuntimeError("the vision tower is not frozen.")


def checkpoint_hash(folder: str | Path) -> str:
    """A hash of a checkpoint's weights; of the name, where it is no folder but a name of the hub."""
    digest, path = hashlib.sha256(), Path(folder)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    for file in files:
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    if not files:
        digest.update(str(folder).encode())
    return digest.hexdigest()[:16]


def tower_hash(model) -> str:
    """A hash of the vision tower's weights: cached features belong to it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.model.visual.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
