"""Models of hsa: the base with semantic attention as an arm has it, saved and loaded again."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.hsa.attention import HSAConfig, attach, save_hsa
from qwenlab.hsa.bias import read_hsa
from qwenlab.hsa.feedback import add_feedback_token


class Lora(Params):
    """An adapter instead of all weights."""

    r: int = Field(ge=0, description="rank; 0 trains all weights")
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str]


class Runtime(Params):
    """What runs where."""

    model: str = Field(description="folder or hub id of a text model: Qwen2, Qwen2.5, Qwen3, Llama")
    device: str
    dtype: Literal["float32", "bfloat16"]
    impl: Literal["sdpa", "eager", "gather", "flex"]
    gradient_checkpointing: bool
    lora: Lora
    processes: int = Field(ge=1, description="training processes of one seed")
    seeds_at_once: int = Field(ge=1, description="seeds trained side by side, on a thread each")


class Arm(Params):
    """What makes an arm."""

    attention: HSAConfig
    shuffle: bool = Field(description="types dealt out anew among the messages of a trajectory: a placebo")
    feedback: bool = Field(description="phase 3 learns only what stands behind <|feedback|>")
    times_steps: int = Field(1, ge=1, description="so many times the steps of phases 1 and 2")


def device_of(name: str) -> str:
    """`auto` as cuda where there is one."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _base(runtime: Runtime, folder: str | Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, runtime.dtype))
    except (OSError, ValueError) as error:
        raise UserError(f"hsa.runtime.model is {str(folder)!r}: cannot be loaded ({error}).") from error
    add_feedback_token(tokenizer, model)
    return model.to(device_of(runtime.device)), tokenizer


def new_model(runtime: Runtime, arm: Arm) -> tuple[Any, Any]:
    """The base with the feedback token and semantic attention, ready to be trained, and its tokenizer."""
    model, tokenizer = _base(runtime, runtime.model)
    attach(model, arm.attention, runtime.impl)
    if runtime.lora.r:
        from peft import LoraConfig, get_peft_model

        lora = runtime.lora
        model = get_peft_model(
            model,
            LoraConfig(
                r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules),
                modules_to_save=["hsa"], task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
    return model, tokenizer


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights (or the adapter) and tokenizer as transformers and peft have them, hsa.json and hsa.safetensors."""
    # The parameters of hsa have a file of their own; in the weights, a stock model would warn of them.
    peft = hasattr(model, "peft_config")
    plain = None if peft else {name: value for name, value in model.state_dict().items() if ".hsa." not in name}
    model.save_pretrained(folder, state_dict=plain)
    tokenizer.save_pretrained(folder)
    save_hsa(model, folder)


def load_model(runtime: Runtime, folder: str | Path, trainable: bool = False) -> tuple[Any, Any]:
    """What `save_model` wrote, and its tokenizer.

    Raises:
        UserError: on files that are missing or broken.
    """
    folder = Path(folder)
    config, tensors = read_hsa(folder)
    adapter = (folder / "adapter_config.json").is_file()
    model, tokenizer = _base(runtime, runtime.model if adapter else folder)
    hsa = attach(model, config, runtime.impl)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    else:
        hsa.load_state_dict(tensors)
    return model.train(trainable), tokenizer
