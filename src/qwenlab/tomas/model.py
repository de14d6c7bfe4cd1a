"""The planner (seed 002, 3): a task in words and a series of machine states in, logits over tools and configurations
out.

    states [B, 32, 4] -> TemporalEncoder -> 256 -> temporal_proj -> H, one embedding in front of the task's tokens
    backbone: any Qwen2-like causal LM with LoRA on q_proj and v_proj; the hidden state of the last token -> decoder
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.tomas.decoder import HeadConfig, HierarchicalDecoder
from qwenlab.tomas.export import Memory
from qwenlab.tomas.language import normalise_durations

TEMPORAL = 256  # features of the state series (seed 002, 3)
FILES = ("planner.safetensors", "planner.json")


class Runtime(Params):
    """Where and with what the planner runs."""

    model: str
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    processes: int = Field(ge=1, description="training processes of one seed, started by accelerate")
    seeds_at_once: int = Field(ge=1, description="seeds trained side by side, on a thread each")


class Lora(Params):
    """LoRA of the backbone (seed 002, note 3: q_proj and v_proj)."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str] = Field(min_length=1)


class TemporalEncoder(nn.Module):
    """1D-CNN over `[B, 32, 4]` utilisation to `[B, 256]`. Windows of 8 samples are pooled by their highest response
    and stay apart, so that the end of the series can be told from older spikes."""

    def __init__(self, resources: int = 4, samples: int = 32, window: int = 8):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(resources, 64, 1), nn.GELU(), nn.Conv1d(64, 64, 3, padding=1), nn.GELU(), nn.MaxPool1d(window)
        )
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(64 * (samples // window), TEMPORAL), nn.GELU())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.output(self.convolutions(states.transpose(1, 2) * 2 - 1))


class AttentionPool(nn.Module):
    """Hidden states `[B, L, H]` to one `[B, H]`: that of the last token, plus what learned queries find in all.

    A large LM gathers a whole task in its last token; a small frozen one does not, and LoRA on q and v alone teaches
    it slowly. `queries: 0` reads the last token only.
    """

    def __init__(self, hidden: int, heads: int, queries: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, hidden) * 0.02)
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True) if queries else None
        self.output = nn.Linear(queries * hidden, hidden) if queries else None

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        last = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        if self.attention is None or self.output is None:
            return last
        queries = self.queries.expand(len(states), -1, -1)
        found, _ = self.attention(queries, states, states, key_padding_mask=mask == 0, need_weights=False)
        return last + self.output(found.flatten(1))


class Planner(nn.Module):
    """Backbone, temporal encoder, projection and decoder."""

    _keys_to_ignore_on_save = None  # Trainer asks for it when it continues at a checkpoint

    def __init__(self, backbone, decoder: HierarchicalDecoder, config_weight: float = 1.0, queries: int = 0):
        super().__init__()
        hidden = backbone.config.hidden_size
        self.backbone, self.decoder, self.config_weight = backbone, decoder, config_weight
        self.temporal = TemporalEncoder()
        self.pool = AttentionPool(hidden, backbone.config.num_attention_heads, queries)
        self.temporal_proj = nn.Sequential(nn.LayerNorm(TEMPORAL), nn.Linear(TEMPORAL, hidden))
        # The injected vector starts as large as the embeddings of words.
        self.temporal_scale = nn.Parameter(backbone.get_input_embeddings().weight.detach().float().std().clone())

    @property
    def config(self):
        """The backbone's, for Trainer."""
        return self.backbone.config

    def hidden(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """`[B, H]` float32: the hidden state of the last token. Tasks `[B, L]` are padded on the right."""
        table = self.backbone.get_input_embeddings()
        state = self.temporal_proj(self.temporal(states)) * self.temporal_scale
        embedded = torch.cat([state[:, None].to(table.weight.dtype), table(input_ids)], 1)
        mask = torch.cat([torch.ones_like(attention_mask[:, :1]), attention_mask], 1)
        decoder = getattr(self.backbone, "base_model", self.backbone)
        decoder = getattr(decoder, "model", decoder)  # PeftModel -> LoraModel -> the causal LM
        output = decoder.get_decoder()(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        return self.pool(output.last_hidden_state.float(), mask)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        states: torch.Tensor,
        tool_labels: torch.Tensor | None = None,
        config_labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`tool_logits` [B, T], `config_logits` [B, N], and with labels `loss`: CE(tool) + lambda CE(config).

        `config_labels`: rows `[B]`, or probabilities `[B, N]`.
        """
        tool_logits, config_logits = self.decoder(self.hidden(input_ids, attention_mask, states))
        output = {"tool_logits": tool_logits, "config_logits": config_logits}
        if tool_labels is not None and config_labels is not None:
            tool_loss = nn.functional.cross_entropy(tool_logits, tool_labels)
            config_loss = nn.functional.cross_entropy(config_logits, config_labels)
            output = {"loss": tool_loss + self.config_weight * config_loss, **output}
        return output


def prompts(tokenizer, tasks: list[str]) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [B, L] of tasks in Qwen's chat format, padded on the right."""
    texts = [f"<|im_start|>user\n{normalise_durations(task)}<|im_end|>\n<|im_start|>assistant\n" for task in tasks]
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def build_decoder(head: HeadConfig, memory: Memory) -> HierarchicalDecoder:
    """A decoder over all rows of `memory`."""
    profile = memory.profile
    return HierarchicalDecoder(
        head,
        memory.weights.float(),
        torch.tensor(profile.tool_ids),
        torch.tensor(profile.requests),
        torch.tensor(profile.latency),
        len(profile.registry.tools),
    )


def load_backbone(model: str, dtype: str, device: str):
    """A causal LM and its tokenizer, from a folder or the hub.

    Raises:
        UserError: when it cannot be read, or the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"tomas.runtime.device is {device!r}, but PyTorch finds no GPU; use the profile tiny, or cpu.")
    logging.disable_progress_bar()  # one line a weight says nothing here
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        backbone = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise UserError(f"{model}: cannot be loaded as a language model ({str(error).splitlines()[0]})") from error
    return backbone.to(device), tokenizer


def with_lora(backbone, lora: Lora):
    """The backbone frozen, with fresh LoRA weights on it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="FEATURE_EXTRACTION",
    )
    return get_peft_model(backbone, config)
