"""Phase 0 (seed 002, 1.3): train the resource encoder so that a frozen language model, given its vector as a prefix,
says the configuration.

Only the MLP and the fusion are trained (AdamW). Two savings over the plain way, both exact: stream A is computed once,
and logits only where a label is (`benchmarks/tomas.py` measures them).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from qwenlab.core.io import atomic_dir, write_json
from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import rounded
from qwenlab.tomas.encoder import (
    EncoderConfig,
    ResourceEncoderForPretraining,
    bounds,
    padded,
    token_losses,
    tool_name_embeddings,
)
from qwenlab.tomas.model import Runtime, load_backbone
from qwenlab.tomas.numbers import round_significant
from qwenlab.tomas.profiling import COLUMNS, Profile
from qwenlab.tomas.text_template import ConfigTextTemplate


class Pretrain(Params):
    """Training of the encoder."""

    seed: int
    mlp_size: int = Field(ge=1)
    heads: int = Field(ge=1)
    fourier: int = Field(ge=0)
    jitter: float = Field(ge=0, lt=1, description="largest relative change of a latency")
    repeats: int = Field(ge=1, description="copies of every row in one epoch, each jittered anew")
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    hard_tokens: float = Field(
        ge=0, description="extra weight of a token, per nat that it is predicted badly; 0 is plain"
    )
    target_loss: float = Field(ge=0, description="training stops when the clean loss after an epoch is below it")
    latency_digits: int = Field(ge=1, description="significant digits of a latency in the sentence")


class EncoderPretrainDataset(torch.utils.data.Dataset):
    """(tool id, resource vector [6], token ids of the sentence) of every row, `repeats` times, jittered by up to
    `jitter` (seed 002, 1.1: +-5%).

    Requested resources lie on a grid and stay there. Latency is measured, so it moves, and the sentence says the moved
    one: the text is always determined by the vector. `epoch` chooses the jitter.
    """

    def __init__(
        self,
        profile: Profile,
        tokenizer,
        ids: Sequence[int],
        digits: int,
        jitter: float = 0.0,
        repeats: int = 1,
        seed: int = 0,
    ):
        self.profile, self.tokenizer, self.ids, self.digits = profile, tokenizer, list(ids), digits
        self.jitter, self.repeats, self.seed, self.epoch = jitter, repeats, seed, 0
        self.template = ConfigTextTemplate(profile.registry.input_sizes)

    def __len__(self) -> int:
        return len(self.ids) * self.repeats

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, list[int]]:
        row = self.ids[index % len(self.ids)]
        vector = self.profile.resources[row].copy()
        if self.jitter:
            draw = np.random.default_rng([self.seed, self.epoch, index])
            vector[5] *= 1 + self.jitter * draw.uniform(-1, 1)
        said = [*vector[:5], round_significant(vector[5], self.digits)]
        tool_id = int(self.profile.tool_ids[row])
        text = self.template.format_single(self.profile.registry.names[tool_id], said)
        return tool_id, torch.tensor(vector), self.tokenizer(text + self.tokenizer.eos_token)["input_ids"]


def collate(samples: list[tuple[int, torch.Tensor, list[int]]], pad: int) -> tuple[torch.Tensor, ...]:
    """Tool ids [B], vectors [B, 6], token ids [B, L], labels [B, L]."""
    tools, vectors, ids = zip(*samples, strict=True)
    return torch.tensor(tools), torch.stack(vectors), *padded(list(ids), pad)


def clean_loss(model, encoder, dataset: EncoderPretrainDataset, batch: int) -> float:
    """Mean loss over the tokens of every sample of a dataset."""
    total, count = 0.0, 0
    with torch.no_grad():
        for samples in _batches(dataset, range(len(dataset)), batch):
            tools, vectors, tokens, labels = collate(samples, dataset.tokenizer.pad_token_id)
            here = int((labels != -100).sum())
            total += here * token_losses(model, encoder(tools, vectors), tokens, labels).mean().item()
            count += here
    return total / count


def _batches(dataset: EncoderPretrainDataset, order: Sequence[int], batch: int) -> Iterator[list]:
    for start in range(0, len(order), batch):
        yield [dataset[int(index)] for index in order[start : start + batch]]


def train(params: Pretrain, profile: Profile, new: np.ndarray, model, tokenizer) -> ResourceEncoderForPretraining:
    """Train an encoder on the configurations that are not `new` [N]; the model stays as it is."""
    seed_everything(params.seed)
    model.requires_grad_(False).eval()
    names = tool_name_embeddings(model, tokenizer, profile.registry.names)
    config = EncoderConfig(
        hidden_size=names.shape[1], mlp_size=params.mlp_size, heads=params.heads, fourier=params.fourier
    )
    encoder = ResourceEncoderForPretraining(config, names, *bounds(torch.tensor(profile.resources[~new])))
    ids = np.flatnonzero(~new).tolist()
    jittered = EncoderPretrainDataset(
        profile, tokenizer, ids, params.latency_digits, params.jitter, params.repeats, params.seed
    )
    clean = EncoderPretrainDataset(profile, tokenizer, ids, params.latency_digits)
    steps = -(-len(jittered) // params.batch) * params.epochs
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=params.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, params.lr, total_steps=steps + 1, pct_start=0.05)
    with progress() as bar:
        task = bar.add_task("phase 0", total=steps)
        for epoch in range(params.epochs):
            jittered.epoch = epoch
            order = np.random.default_rng([params.seed, epoch]).permutation(len(jittered))
            for samples in _batches(jittered, order.tolist(), params.batch):
                tools, vectors, tokens, labels = collate(samples, tokenizer.pad_token_id)
                losses = token_losses(model, encoder(tools, vectors), tokens, labels)
                # Most tokens are boilerplate; digits, which come last, would else be learned far more slowly.
                loss = (losses * (1 + params.hard_tokens * losses.detach())).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                bar.advance(task)
            reached = clean_loss(model, encoder, clean, params.batch)
            print(
                f"phase 0 epoch {epoch + 1}/{params.epochs} loss {losses.mean().item():.4f}, clean {reached:.4f}",
                flush=True,
            )
            if reached < params.target_loss:
                break
    return encoder.eval()


SAID = re.compile(
    r"Tool (?P<tool>\S+) configuration: input size (?P<input_size>.+?), requires (?P<cpu_cores>\S+) CPU cores, "
    r"(?P<memory_gb>\S+) GB memory, (?P<gpu_sm>\S+) GPU SMs, (?P<gpu_memory_gb>\S+) GB GPU memory, "
    r"and latency is (?P<latency_ms>\S+) ms\."
)


@torch.no_grad()
def reconstruct(model, tokenizer, encoder, profile: Profile, batch: int = 256) -> list[dict | None]:
    """What the frozen LM says of every configuration by greedy decoding, parsed; None where that is no sentence."""
    tools, vectors = torch.tensor(profile.tool_ids), torch.tensor(profile.resources)
    said: list[dict | None] = []
    for start in range(0, len(profile), batch):
        prefix = encoder(tools[start : start + batch], vectors[start : start + batch])[:, None]
        tokens = model.generate(
            inputs_embeds=prefix.to(model.dtype),
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for text in tokenizer.batch_decode(tokens, skip_special_tokens=True):
            found = SAID.search(text)
            said.append(found.groupdict() if found else None)
    return said


def fields_correct(said: list[dict | None], profile: Profile) -> dict[str, np.ndarray]:
    """[N] bool a field: the tool, the size and the four resources exact, the latency within 5%."""
    good: dict[str, list[bool]] = {name: [] for name in COLUMNS}
    for index, words in enumerate(said):
        row = profile.row(index)
        for name in COLUMNS:
            good[name].append(words is not None and _same(words[name], row[name], 0.05 if name == "latency_ms" else 0))
    return {name: np.array(values) for name, values in good.items()}


def _same(word: str, truth, tolerance: float) -> bool:
    if isinstance(truth, str):
        return word == truth
    try:
        return abs(float(word) - truth) <= tolerance * truth
    except ValueError:
        return False


def run(
    params: Pretrain, runtime: Runtime, profile: Profile, new: np.ndarray, out: str | Path, metrics: str | Path
) -> None:
    """Train the encoder, save it, and write loss and reconstruction of all rows, and of those it never saw."""
    model, tokenizer = load_backbone(runtime.model, runtime.dtype, runtime.device)
    encoder = train(params, profile, new, model, tokenizer)
    groups = {"all": np.ones_like(new), "seen": ~new, "new": new}
    correct = fields_correct(reconstruct(model, tokenizer, encoder, profile), profile)
    categorical = np.all([correct[name] for name in COLUMNS if name != "latency_ms"], axis=0)
    result: dict = {"loss": {}, "categorical_exact": {}, "latency_within_5_percent": {}}
    for name, chosen in groups.items():
        if chosen.any():
            rows = EncoderPretrainDataset(profile, tokenizer, np.flatnonzero(chosen).tolist(), params.latency_digits)
            result["loss"][name] = clean_loss(model, encoder, rows, params.batch)
            result["categorical_exact"][name] = float(categorical[chosen].mean())
            result["latency_within_5_percent"][name] = float(correct["latency_ms"][chosen].mean())
    result["fields"] = {name: float(values.mean()) for name, values in correct.items()}
    with atomic_dir(out) as folder:
        encoder.save_pretrained(folder)
    write_json(metrics, rounded(result))
    print(result, flush=True)
