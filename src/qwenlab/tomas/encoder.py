"""The resource encoder of phase 0 (seed 002, 1.2): a tool and six numbers become one vector in a language model's
embedding space.

    stream A   the tool's name through the LM's own embedding table, mean over its tokens; frozen
    stream B   ResourceMLP, six numbers -> H; trained
    fusion     self-attention over the two; trained

The six numbers are scaled to about [-1, 1] (logarithms of the five positive ones). A plain MLP on them cannot tell
5800 ms from 5900 ms, which are 0.2% of the range apart; `fourier` adds sines and cosines of rising frequency (Tancik
et al. 2020, NeRF's positional encoding). `fourier: 0` is the plain MLP.
"""

import math
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params


class EncoderConfig(Params):
    """Sizes of the trained parts; `hidden_size` is the language model's."""

    hidden_size: int = Field(ge=1)
    mlp_size: int = Field(ge=1)
    heads: int = Field(ge=1)
    fourier: int = Field(ge=0, description="octaves of sine features for each number; 0 for none")


class ResourceMLP(nn.Module):
    """Six numbers `[B, 6]` (`profiling.FIELDS`) to `[B, H]`.

    Args:
        low, high: `[6]` bounds of the scaled numbers, from the profile that it is trained on.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, config: EncoderConfig, low: torch.Tensor, high: torch.Tensor):
        super().__init__()
        self.fourier = config.fourier
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())
        self.layers = nn.Sequential(
            nn.Linear(6 * (1 + 2 * config.fourier), config.mlp_size),
            nn.GELU(),
            nn.Linear(config.mlp_size, config.mlp_size),
            nn.GELU(),
            nn.Linear(config.mlp_size, config.hidden_size),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def scaled(self, resources: torch.Tensor) -> torch.Tensor:
        """The six numbers in about [-1, 1]; a field that never changes is 0."""
        values = logarithms(resources)
        span = self.high - self.low
        return torch.where(span > 0, 2 * (values - self.low) / span.clamp_min(1e-9) - 1, torch.zeros_like(values))

    def forward(self, resources: torch.Tensor) -> torch.Tensor:
        values = self.scaled(resources)
        # Decades, not the span, are the period: two numbers with the same digits then share all but the slow waves.
        octaves = 2.0 ** torch.arange(self.fourier, device=values.device) * math.pi / 2
        decades = torch.cat([resources[..., :1], resources[..., 1:].log10()], -1)
        angles = (decades[..., None] * octaves).flatten(-2)
        return self.layers(torch.cat([values, angles.sin(), angles.cos()], -1))


def logarithms(resources: torch.Tensor) -> torch.Tensor:
    """The input size as it is, the other five as logarithms, `[..., 6]`."""
    return torch.cat([resources[..., :1], resources[..., 1:].log()], -1)


class ResourceEncoderForPretraining(nn.Module):
    """`forward(tool_id [B], resource_vector [B, 6]) -> [B, H]`.

    Args:
        tool_embeddings: `[T, H]` stream A, computed once (`tool_name_embeddings`), for it is frozen.
    """

    tool_embeddings: torch.Tensor

    def __init__(self, config: EncoderConfig, tool_embeddings: torch.Tensor, low: torch.Tensor, high: torch.Tensor):
        super().__init__()
        self.config = config
        self.register_buffer("tool_embeddings", tool_embeddings.float())
        self.mlp = ResourceMLP(config, low, high)
        self.attention = nn.MultiheadAttention(config.hidden_size, config.heads, batch_first=True)
        self.stream_norm = nn.LayerNorm(config.hidden_size)  # both streams count as much at first
        self.norm = nn.LayerNorm(config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        nn.init.xavier_uniform_(self.output.weight)
        # Start as large as a token's embedding, which is what the LM is used to.
        self.scale = nn.Parameter(tool_embeddings.std().clamp_min(1e-3).float())

    def forward(self, tool_id: torch.Tensor, resource_vector: torch.Tensor) -> torch.Tensor:
        streams = torch.stack([self.tool_embeddings[tool_id], self.mlp(resource_vector.float())], 1)
        both = self.stream_norm(streams)
        fused, _ = self.attention(both, both, both, need_weights=False)
        return self.output(self.norm((both + fused).sum(1))) * self.scale

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `encoder.safetensors` and `encoder.json`."""
        from safetensors.torch import save_file

        from qwenlab.core.io import write_json

        folder = Path(folder)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / FILES[0])
        write_json(folder / FILES[1], self.config.model_dump())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "ResourceEncoderForPretraining":
        """Read what `save_pretrained` wrote, in eval mode."""
        from safetensors.torch import load_file

        from qwenlab.core.io import read_json

        folder = Path(folder)
        if not (folder / FILES[0]).is_file():
            raise UserError(f"{folder / FILES[0]}: no such file; `dvc repro tomas-pretrain_encoder` writes it.")
        state = load_file(folder / FILES[0])
        config = EncoderConfig.model_validate(read_json(folder / FILES[1]))
        encoder = cls(config, state["tool_embeddings"], state["mlp.low"], state["mlp.high"])
        encoder.load_state_dict(state)
        return encoder.eval()


FILES = ("encoder.safetensors", "encoder.json")


@torch.no_grad()
def tool_name_embeddings(model, tokenizer, names: list[str]) -> torch.Tensor:
    """Stream A: `[T, H]`, the mean of the LM's input embeddings over the tokens of each name."""
    table = model.get_input_embeddings().weight
    rows = [table[tokenizer(name, add_special_tokens=False)["input_ids"]].float().mean(0) for name in names]
    return torch.stack(rows).cpu()


def bounds(resources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[6]` lowest and highest value of each field as the MLP scales it."""
    values = logarithms(resources)
    return values.min(0).values, values.max(0).values


def padded(ids: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, L] padded on the right, and labels [B, L] with -100 on the padding."""
    length = max(map(len, ids))
    tokens = torch.tensor([one + [pad] * (length - len(one)) for one in ids])
    labels = torch.tensor([one + [-100] * (length - len(one)) for one in ids])
    return tokens, labels


def token_losses(model, prefix: torch.Tensor, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every token of the sentences `[B, L]` behind the prefixes `[B, H]`, as one flat list.

    The hidden state at position i (the prefix is position 0) predicts token i. Logits only where a label is.
    """
    table = model.get_input_embeddings()
    embedded = torch.cat([prefix[:, None].to(table.weight.dtype), table(tokens[:, :-1])], 1)
    hidden = model.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state
    there = labels != -100
    logits = model.get_output_embeddings()(hidden[there]).float()
    return torch.nn.functional.cross_entropy(logits, labels[there], reduction="none")
