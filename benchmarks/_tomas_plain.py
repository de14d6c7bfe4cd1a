"""The plain ways that benchmarks/tomas.py compares with: a planner that writes its plan as JSON, token by token, and
a step of phase 0 without its savings."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qwenlab.core.seeding import seed_everything
from qwenlab.tomas.encoder import (
    EncoderConfig,
    ResourceEncoderForPretraining,
    bounds,
    padded,
    token_losses,
    tool_name_embeddings,
)
from qwenlab.tomas.model import Planner, Runtime, load_backbone, prompts, with_lora
from qwenlab.tomas.pretrain import EncoderPretrainDataset, Pretrain, collate
from qwenlab.tomas.profiling import COLUMNS, Profile
from qwenlab.tomas.task_set import TaskSet, task_set
from qwenlab.tomas.train import Train, make_trainer

LONGEST = 96  # tokens of a written plan; a whole one has about half of that


class Writer(Planner):
    """Backbone, LoRA, temporal encoder and projection are the planner's; there are no heads."""

    def __init__(self, backbone, tokenizer):
        super().__init__(backbone, nn.Identity())  # type: ignore[arg-type]
        self.tokenizer = tokenizer

    @property
    def lm(self):
        """The causal LM, with LoRA in it."""
        return self.backbone.base_model.model

    def prefix(self, states: torch.Tensor) -> torch.Tensor:
        """`[B, H]` of states `[B, 32, 4]`."""
        return self.temporal_proj(self.temporal(states)) * self.temporal_scale

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor, states: torch.Tensor):  # type: ignore[override]
        """`loss`: cross-entropy of the tokens of the answers."""
        return {"loss": token_losses(self.lm, self.prefix(states), tokens, targets).mean()}

    def embedded(self, task: str, state: np.ndarray) -> torch.Tensor:
        """`[1, L, H]`: the state, then the prompt."""
        words = self.lm.get_input_embeddings()(prompts(self.tokenizer, [task])["input_ids"])
        return torch.cat([self.prefix(torch.tensor(state)[None])[:, None], words], 1)

    @torch.no_grad()
    def read(self, task: str, state: np.ndarray):
        """(logits of the first token, KV cache) behind the prompt."""
        output = self.lm(inputs_embeds=self.embedded(task, state), use_cache=True, logits_to_keep=1)
        return output.logits, output.past_key_values

    @torch.no_grad()
    def go_on(self, logits: torch.Tensor, cache) -> list[int]:
        """The plan, always the most likely token: nothing but forward passes on the KV cache."""
        said: list[int] = []
        token = logits[:, -1:].argmax(-1)
        while (number := int(token)) != self.tokenizer.eos_token_id and len(said) < LONGEST:
            said.append(number)
            output = self.lm(input_ids=token, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        return said

    @torch.no_grad()
    def generate(self, task: str, state: np.ndarray) -> list[int]:
        """The same by the `generate` of transformers."""
        embedded, end = self.embedded(task, state), self.tokenizer.eos_token_id
        said = self.lm.generate(
            inputs_embeds=embedded, attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long), do_sample=False,
            max_new_tokens=LONGEST, eos_token_id=end, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return [token for token in said[0].tolist() if token != end]


def collator(tasks: TaskSet, profile: Profile, tokenizer):
    """Indices of a batch -> what `Writer.forward` takes: prompt and answer, with targets on the answer alone."""

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        asked = [prompts(tokenizer, [tasks.texts[index]])["input_ids"][0].tolist() for index in indices]
        plans = [json.dumps(profile.row(int(tasks.configs[index]))) + tokenizer.eos_token for index in indices]
        pairs = zip(asked, tokenizer(plans)["input_ids"], strict=True)
        tokens, targets = padded([one + other for one, other in pairs], tokenizer.pad_token_id)
        for row, one in zip(targets, asked, strict=True):
            row[: len(one)] = -100
        return {"tokens": tokens, "targets": targets, "states": tasks.states[indices]}

    return collate


def train_writer(params: Train, runtime: Runtime, profile: Profile, tasks: list[dict], states: np.ndarray) -> Writer:
    """Train a writer as `train_seed` trains planners: optimiser, schedule, batches and their order are the same."""
    seed_everything(0)
    backbone, tokenizer = load_backbone(runtime.model, runtime.dtype, runtime.device)
    writer = Writer(with_lora(backbone, params.lora), tokenizer)
    data = task_set(tasks, states, np.arange(len(profile)))
    with tempfile.TemporaryDirectory() as work:
        trainer = make_trainer(params, runtime, writer, data, tokenizer, 0, Path(work))
        trainer.data_collator = collator(data, profile, tokenizer)
        trainer.train()
    return writer.eval()


def row_ids(profile: Profile) -> dict[tuple, int]:
    """(tool, input size, four resources) -> configuration id."""
    rows = (profile.row(index) for index in range(len(profile)))
    return {tuple(row[name] for name in COLUMNS[:-1]): index for index, row in enumerate(rows)}


def named_row(text: str, rows: dict[tuple, int]) -> int:
    """The configuration that a written plan names; its latency is not looked at. -1: no JSON, or no such row."""
    try:
        plan = json.loads(text)
        return rows.get(tuple(plan[name] for name in COLUMNS[:-1]), -1)
    except (ValueError, KeyError, TypeError):
        return -1


class Phase0:
    """A training step of phase 0: forward, and the gradients of the encoder; in our way and in the plain one."""

    def __init__(self, params: Pretrain, profile: Profile, model, tokenizer):
        seed_everything(params.seed)
        self.model, self.tokenizer = model.requires_grad_(False).eval(), tokenizer
        names = tool_name_embeddings(model, tokenizer, profile.registry.names)
        config = EncoderConfig(
            hidden_size=names.shape[1], mlp_size=params.mlp_size, heads=params.heads, fourier=params.fourier
        )
        self.encoder = ResourceEncoderForPretraining(config, names, *bounds(torch.tensor(profile.resources)))
        ids = np.random.default_rng(params.seed).permutation(len(profile))[: params.batch].tolist()
        data = EncoderPretrainDataset(profile, tokenizer, ids, params.latency_digits)
        rows = [data[index] for index in range(len(data))]
        self.tools, self.vectors, self.tokens, self.labels = collate(rows, tokenizer.pad_token_id)
        self.names = [profile.registry.names[tool] for tool in self.tools]

    def ours(self) -> torch.Tensor:
        """Tool names embedded once, logits only where a label is."""
        return token_losses(self.model, self.encoder(self.tools, self.vectors), self.tokens, self.labels).mean()

    def plain(self) -> torch.Tensor:
        """Tool names through tokenizer and embeddings every time; logits everywhere, padding too; `labels=`."""
        table, kept = self.model.get_input_embeddings(), self.encoder.tool_embeddings
        named = self.tokenizer(self.names, add_special_tokens=False, padding=True, return_tensors="pt")
        mask = named["attention_mask"][..., None]
        self.encoder.tool_embeddings = (table(named["input_ids"]) * mask).sum(1) / mask.sum(1)
        prefix = self.encoder(torch.arange(len(self.names)), self.vectors)
        self.encoder.tool_embeddings = kept
        embedded = torch.cat([prefix[:, None], table(self.tokens)], 1)
        labels = torch.cat([torch.full_like(self.labels[:, :1], -100), self.labels], 1)
        return self.model(inputs_embeds=embedded, labels=labels, use_cache=False).loss

    def gradients(self, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Forward and backward; all gradients in one vector."""
        found = torch.autograd.grad(loss(), list(self.encoder.parameters()))
        return torch.cat([one.flatten() for one in found])


def random_model(hidden: int, vocab: int):
    """An untrained two-layer Qwen2: what a step costs does not depend on the weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)
