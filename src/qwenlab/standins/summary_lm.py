"""Make the base model of the student: a tiny `Qwen2ForCausalLM` that reads thinkings and copies.

Run: dvc repro -f -s standin-summary_lm (about five minutes).

It is not taught to summarise: that is what the student's LoRA has to learn. Copying does not come by itself at this
size (the loss sits where words are guessed by their frequency); a curriculum of sequences to repeat, most of the
batch at first, brings it about.
"""

from pathlib import Path

import numpy as np
import torch

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins.loop import fit
from qwenlab.standins.summary_lm_data import Samples


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
    repeats_first: float
    repeats_last: float
    repeat_length: int


def build_tokenizer(recipe: Recipe):
    """A Qwen2 tokenizer for the language of the samples."""
    samples = Samples(recipe.seed + 1)
    texts = [text for pair in samples.batch(3000) for text in pair]
    # What JSON has between words, and words behind a quotation mark, where no blank precedes them.
    texts += [
        '{"' + '","'.join(samples.words(6)) + '":[{"' + '":"'.join(samples.words(4)) + '"}]}' for _ in range(2000)
    ]
    return train_tokenizer(texts, recipe.vocab)


def build_model(recipe: Recipe, tokenizer):
    """An untrained tiny model."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, labels) `[B, L]`, padded on the right; only answers have labels. A pair without a prompt is plain text."""
    rows = []
    for prompt, answer in pairs:
        start = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" if prompt else ""
        before = tokenizer(start)["input_ids"] if start else []
        after = tokenizer(f"{answer}<|im_end|>")["input_ids"]
        rows.append((before + after, [-100] * len(before) + after))
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for row, (tokens, wanted) in enumerate(rows):
        ids[row, : len(tokens)], labels[row, : len(wanted)] = torch.tensor(tokens), torch.tensor(wanted)
    return ids, labels


def repeats(count: int, longest: int, vocab: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, labels) `[count, L]`: tokens drawn from the whole vocabulary, and the same again.

    No token stands twice in a sequence: what follows a token is then certain, and the two attention heads that copying
    takes (find where it stood before, take what came next) are found in a minute. Words of a small language, each of
    which stands there several times, did not bring them about.
    """
    length = int(rng.integers(longest // 4, longest + 1))
    half = np.stack([rng.permutation(vocab)[:length] for _ in range(count)])
    ids = torch.from_numpy(np.concatenate([half, half], 1))
    labels = ids.clone()
    labels[:, : length + 1] = -100
    return ids, labels


def loss_of(model, tokenizer, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens. Padding on the right needs no mask under causal attention."""
    ids, labels = encode(tokenizer, pairs)
    return model(input_ids=ids, labels=labels).loss


README = """# Stand-in for Qwen/Qwen2.5-3B-Instruct (base of the student of thinkseg)

A tiny `Qwen2ForCausalLM` ({millions:.2f} M parameters) with a Qwen2 tokenizer of {vocab} tokens, loaded by
`from_pretrained`. It stands for the published checkpoint where none can be had, so that the same code runs on a
laptop. It was **not** trained to summarise: no thinking ever stood beside a summary of it. That is left to the
student's LoRA.

Made by `dvc repro -f -s standin-summary_lm` from the recipe `standins.summary_lm` in params.yaml: {recipe.steps} steps
on text made on the fly: thinkings about things of no particular clip, short questions about them, lines of words as
JSON with keys of any name, and random tokens to repeat ({recipe.repeats_first:.0%} of a batch at first,
{recipe.repeats_last:.0%} at last), without which so small a model does not learn to copy.

Nats a token on fresh samples: repeating {quality[repeating]:.3f}, lists as JSON {quality[json]:.3f}, questions about
thinkings {quality[reading]:.3f}, thinkings by themselves {quality[thinking]:.3f}. Weights are fp16.
"""


def train(recipe: Recipe, out: str | Path) -> dict[str, float]:
    """Train, save model and tokenizer to `out` in fp16, and return the quality on fresh samples."""
    seed_everything(recipe.seed)
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    samples = Samples(recipe.seed + 2)

    rng = np.random.default_rng(recipe.seed + 4)

    def step_loss(step: int) -> torch.Tensor:
        done = min(1.0, step / (0.5 * recipe.steps))
        share = recipe.repeats_first + (recipe.repeats_last - recipe.repeats_first) * done
        count = round(share * recipe.batch)
        ids, labels = repeats(count, recipe.repeat_length, len(tokenizer), rng)
        copying = model(input_ids=ids, labels=labels).loss
        return share * copying + (1 - share) * loss_of(model, tokenizer, samples.batch(recipe.batch - count))

    fit(model.parameters(), step_loss, recipe.steps, recipe.lr, "base of the student")
    fresh = Samples(recipe.seed + 3)
    kinds = {"repeating": fresh.repeat, "json": fresh.as_json, "reading": fresh.reading, "thinking": fresh.thinking}
    model.eval()
    with torch.no_grad():
        quality = {
            name: float(f"{loss_of(model, tokenizer, [draw() for _ in range(100)]).item():.4g}")
            for name, draw in kinds.items()
        }
    facts = {"millions": sum(p.numel() for p in model.parameters()) / 1e6, "vocab": len(tokenizer)}
    with atomic_dir(out) as folder:
        model.to(torch.float16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(README.format(recipe=recipe, quality=quality, **facts), encoding="utf-8")
    return quality
