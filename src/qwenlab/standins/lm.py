"""Make the language stand-in: a tiny `Qwen2ForCausalLM`. Run: dvc repro -f -s standin-lm (about 15 minutes)."""

import math
from pathlib import Path

import torch

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins.lm_data import NUMBERS, Samples, number_tokens, phrase_tokens, zero_tokens
from qwenlab.standins.loop import fit
from qwenlab.tomas.encoder import (
    EncoderConfig,
    ResourceEncoderForPretraining,
    bounds,
    padded,
    token_losses,
    tool_name_embeddings,
)
from qwenlab.tomas.registry import read_registry


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    vocab: int
    steps: int
    batch: int
    lr: float


def build_tokenizer(registry, vocab: int):
    """A Qwen2 tokenizer for the language of the samples, with numbers and boilerplate as single tokens."""
    samples = Samples(registry, 1)
    texts = [samples.comparison() for _ in range(50)]
    for _ in range(3000):
        task, values = samples.task()
        _, vector, sentence = samples.configuration()
        listed = samples.short_list([*values, *samples.told(vector)])
        texts += [task, samples.answer(values), listed, samples.request(), sentence]
    tokenizer = train_tokenizer(texts, vocab)
    tokenizer.add_tokens([*number_tokens(), *zero_tokens(), *phrase_tokens()])
    return tokenizer


def build_model(recipe: Recipe, tokenizer):
    """An untrained tiny model. Number tokens start on a smooth curve over their logarithm: near numbers are alike."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    ids = tokenizer.convert_tokens_to_ids(number_tokens())
    turns = torch.tensor(NUMBERS).clamp_min(1).log10()[:, None] * 2.0 ** torch.arange(-1, 4)
    curve = torch.cat([(2 * math.pi * turns).sin(), (2 * math.pi * turns).cos()], 1) @ torch.randn(10, recipe.hidden)
    with torch.no_grad():
        model.get_input_embeddings().weight[ids] += 0.02 * curve / 10**0.5
    return model


class Trainer:
    """Batches of half configurations behind a vector, half plain language; padded on the right.

    The vector comes from a throw-away resource encoder that is trained along on random configurations and never
    saved. What stays is a model that can be told things through one vector, as large models can; phase 0 has to find
    out how with an encoder of its own.
    """

    def __init__(self, model, tokenizer, samples: Samples, batch: int):
        self.model, self.tokenizer, self.samples, self.batch = model, tokenizer, samples, batch
        hidden = model.config.hidden_size
        config = EncoderConfig(
            hidden_size=hidden, mlp_size=2 * hidden, heads=model.config.num_attention_heads, fourier=8
        )
        low, high = bounds(torch.tensor(samples.bounds()))
        self.encoder = ResourceEncoderForPretraining(config, torch.ones(1, hidden), low, high)
        self.encoder.scale.data.fill_(0.02)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The model's and the throw-away encoder's."""
        return [*self.model.parameters(), *self.encoder.parameters()]

    def _prefix(self, drawn: list) -> torch.Tensor:
        names = self.samples.names
        self.encoder.tool_embeddings = tool_name_embeddings(self.model, self.tokenizer, names)
        tools = torch.tensor([names.index(tool) for tool, _, _ in drawn])
        return self.encoder(tools, torch.tensor([vector for _, vector, _ in drawn]))

    def _chat(self) -> tuple[str, tuple | None]:
        """A task with its answer, and what a vector in front of it tells, if there is one."""
        task, values = self.samples.task()
        drawn, answer = None, self.samples.answer(values)
        if self.samples.rng.random() < 0.75:
            if self.samples.rng.random() < 0.67:
                drawn = self.samples.configuration()
                values = [*values, *self.samples.told(drawn[1])]
            answer = self.samples.short_list(values)
        return f"<|im_start|>user\n{task}<|im_end|>\n<|im_start|>assistant\n{answer}", drawn

    def _plain(self) -> str:
        return self.samples.request() if self.samples.rng.random() < 0.5 else self.samples.comparison()

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch: cross-entropy of every token of configurations, and the mean of as much other language."""
        told = [self.samples.configuration() for _ in range(self.batch)]
        chats = [self._chat() for _ in range(self.batch * 3 // 4)]
        texts = [text for _, _, text in told] + [text for text, _ in chats]
        texts += [self._plain() for _ in range(self.batch // 4)]
        ids = self.tokenizer([text + self.tokenizer.eos_token for text in texts])["input_ids"]
        nothing = ("", [0.0, 1, 1, 1, 1, 1], "")
        drawn = [one or nothing for _, one in chats] + [nothing] * (self.batch // 4)
        pad = self.tokenizer.pad_token_id
        sentences = token_losses(self.model, self._prefix(told), *padded(ids[: self.batch], pad))
        there = torch.tensor([float(bool(name)) for name, _, _ in drawn])[:, None]
        prefix = self._prefix([(name or self.samples.names[0], vector, text) for name, vector, text in drawn]) * there
        tokens, labels = padded(ids[self.batch :], pad)
        return sentences, token_losses(self.model, prefix, tokens, labels).mean()

    def loss(self, step: int) -> torch.Tensor:
        """What is minimised. Tokens of a configuration count the more, the worse they are predicted: most of them are
        boilerplate, and digits, which come last, would else be learned far more slowly."""
        told, language = self.losses()
        return (told * (1 + told.detach())).mean() + language


README = """# Stand-in for Qwen/Qwen2.5-7B (language)

A tiny `Qwen2ForCausalLM` ({millions:.2f} M parameters) with a Qwen2 tokenizer of {vocab} tokens, loaded by
`from_pretrained`. It stands for the published checkpoint where none can be had, so that the same code runs on a
laptop. Nothing that a seed document asks to train is in it.

Made by `dvc repro -f -s standin-lm` from the recipe `standins.lm` in params.yaml: {recipe.steps} steps on text made on
the fly. It knows the language of the systems: configurations in words, tasks as their training split phrases them and
what they ask for as JSON, a dictionary of what people ask of each tool, durations. Whole test tasks never appear in
it. Numbers are a token for the first two digits and one for the zeros behind; boilerplate phrases are single tokens.

What a large model brings along and a small one has to be taught is to be told things through one vector. Half of the
configurations therefore stood behind the vector of a resource encoder that was trained along on random configurations
and thrown away; profiled rows were not used.

After training, on fresh random configurations: {quality[configurations]:.3f} nats a token behind such a vector; on
language: {quality[language]:.3f}. Weights are fp16.
"""


def train(recipe: Recipe, registry_file: str | Path, out: str | Path) -> dict[str, float]:
    """Train, save model and tokenizer to `out` in fp16, and return the quality on fresh samples."""
    seed_everything(recipe.seed)
    registry = read_registry(registry_file)
    tokenizer = build_tokenizer(registry, recipe.vocab)
    model = build_model(recipe, tokenizer)
    trainer = Trainer(model, tokenizer, Samples(registry, recipe.seed + 2), recipe.batch)
    fit(trainer.parameters(), trainer.loss, recipe.steps, recipe.lr, "language model")
    trainer.samples = Samples(registry, recipe.seed + 3)
    with torch.no_grad():
        fresh = [trainer.losses() for _ in range(20)]
    quality = {
        "configurations": sum(told.mean().item() for told, _ in fresh) / len(fresh),
        "language": sum(language.item() for _, language in fresh) / len(fresh),
    }
    quality = {name: float(f"{value:.4g}") for name, value in quality.items()}
    facts = {"millions": sum(p.numel() for p in model.parameters()) / 1e6, "vocab": len(tokenizer)}
    with atomic_dir(out) as folder:
        model.to(torch.float16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(README.format(recipe=recipe, quality=quality, **facts), encoding="utf-8")
    return quality
