"""The tiny Qwen2ForCausalLM that stands for Qwen2.5-7B as the base of hsa: it can copy, and knows chat turns.

    python -m stages.standins.agent --out data/standins/agent --metrics metrics/standins/agent.json

What a published model brings along is to find an earlier mention of a word and to say what stood behind it (induction
heads: Olsson et al. 2022). A fresh tiny model never learns that from trajectories alone: it ends at guessing among the
rooms that were named. So this one is trained on random words said again, first in short streams, then in chat turns.
It has seen none of the systems' sentences, and no semantic types.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.hsa.words import sentences
from qwenlab.standins.loop import fit

# Other words, so that it copies words and not the vocabulary of one world.
WORDS = """
one two three four five six seven eight nine ten red green blue white black grey old new big small left right near far
tree river stone bird fish dog cat horse road bridge town house door wall roof fire rain wind snow sun moon star bread
salt milk honey corn rice tea hand foot head eye ear song word line page week year hour night morning north south east
west give take bring find keep lose make open close push pull turn stop wait come
"""


class Recipe(Params):
    """How the stand-in is made (`standins.agent` in params.yaml)."""

    seed: int
    hidden: int = Field(ge=16)
    layers: int = Field(ge=2, description="induction needs two")
    heads: int = Field(ge=1)
    mlp: int = Field(ge=16)
    vocab: int = Field(ge=256, description="BPE vocabulary before special tokens")
    short_steps: int = Field(ge=0, description="streams of 24 tokens, two to four keys")
    long_steps: int = Field(ge=0, description="streams of 64 tokens, up to ten keys")
    chat_steps: int = Field(ge=0, description="chats of 200 tokens, later also of 1000")
    far_steps: int = Field(ge=0, description="chats of up to 2200 tokens, at half the rate")
    change: float = Field(ge=0, le=1, description="how often a key comes back with new words, which count from then on")
    lr: float = Field(gt=0)


def build_tokenizer(vocab: int):
    """Whole words of the world and of `WORDS` are single tokens, with and without a space before them."""
    words = [*WORDS.split(), "user", "assistant", "system"]
    return train_tokenizer([*sentences(), *(f"{word} {word}" for word in words for _ in range(3))], vocab)


def build_model(recipe: Recipe, tokenizer):
    """A Qwen2 with tied embeddings. Weights begin at a deviation of 0.1: at 0.02 copying comes ten times later."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # as Qwen2.5 has it
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def streams(words: np.ndarray, batch: int, length: int, least: int, most: int, rng: np.random.Generator,
            size: int | None = None, change: float = 0.0):  # fmt: skip
    """Words that bring others along: a key and the 1 or 2 words behind it, said again and again.

    With `change`, a key comes back with new words so often, and these count from then on.

    Returns:
        ids `[batch, L]` and, of the same shape, whether a token follows from what was said before.
    """
    size = size or int(rng.integers(2, 4))
    kinds, count = int(rng.integers(least, most + 1)), length // size
    keys = np.stack([rng.choice(words, kinds, replace=False) for _ in range(batch)])
    drawn = rng.integers(0, kinds, (batch, count))
    behind = rng.choice(words, (batch, count, size - 1))
    last = np.full((batch, kinds), -1)
    known = np.zeros((batch, count, size), bool)
    rows = np.arange(batch)
    for n in range(count):
        before = last[rows, drawn[:, n]]
        again = (before >= 0) & (rng.random(batch) >= change)
        behind[again, n] = behind[rows[again], before[again]]
        known[again, n, 1:] = True
        last[rows, drawn[:, n]] = n
    ids = np.concatenate([keys[rows[:, None], drawn][:, :, None], behind], 2)
    return ids.reshape(batch, -1), known.reshape(batch, -1)


def chats(words: np.ndarray, marks: list[list[int]], batch: int, length: int, most: int, rng: np.random.Generator,
          change: float = 0.0):  # fmt: skip
    """The same as turns of a chat. Most turns state something: random words, a key, what is behind it, and
    maybe more words. In the others the user gives a verb and a key, and the assistant repeats both, and what was last
    behind the key.

    Args:
        marks: tokens that open a user's turn, that open an assistant's, and that end either.
    """
    size = int(rng.integers(2, 4))
    asks, answers, end = (np.tile(part, (batch, 1)) for part in marks)
    frame = asks.shape[1] + end.shape[1]
    stated = length // (frame + 1 + size)
    plain, known = (
        part.reshape(batch, stated, size) for part in streams(words, batch, stated * size, 3, most, rng, size, change)
    )
    ids, knowns = [], []

    def add(tokens: np.ndarray, follows: np.ndarray | bool = False) -> None:
        ids.append(tokens)
        knowns.append(np.broadcast_to(follows, tokens.shape))

    for n in range(stated):
        if sum(part.shape[1] for part in ids) > length:
            break
        verb = rng.choice(words, (batch, 1))
        if n > 2 and rng.random() < 0.5:
            # About a key of an earlier turn; what counts is what stood behind it last.
            about = rng.integers(0, n, batch)
            rows = np.arange(batch)
            same = (plain[:, :n, 0] == plain[rows, about, 0][:, None]) * np.arange(1, n + 1)
            latest = plain[rows, same.argmax(1)]
            for part in (asks, verb, latest[:, :1], end, answers):
                add(part)
            add(np.concatenate([verb, latest], 1), True)
            add(end)
        # Turns of any length: with a fixed one, what a turn said is found by counting tokens, not by words.
        add(asks if n % 2 == 0 else answers)
        add(rng.choice(words, (batch, int(rng.integers(1, 4)))))
        add(plain[:, n], known[:, n])
        add(rng.choice(words, (batch, int(rng.integers(0, 3)))))
        add(end)
    return np.concatenate(ids, 1), np.concatenate(knowns, 1)


class Copying:
    """The curriculum: short streams, long streams, chats."""

    def __init__(self, model, tokenizer, recipe: Recipe, seed: int):
        self.model, self.recipe, self.rng = model, recipe, np.random.default_rng(seed)
        words = {word.strip(".,") for text in sentences() for word in text.split()} | set(WORDS.split())
        both = [tokenizer.encode(form) for word in sorted(words) for form in (word, f" {word}")]
        self.words = np.array(sorted({ids[0] for ids in both if len(ids) == 1}))
        self.marks = [
            tokenizer.encode(text) for text in ("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n")
        ]

    def short(self, step: int) -> torch.Tensor:
        """Streams of 24 tokens."""
        return self.losses(*streams(self.words, 64, 24, 2, 4, self.rng, change=self.recipe.change))[0]

    def long(self, step: int) -> torch.Tensor:
        """Streams of 64 tokens."""
        return self.losses(*streams(self.words, 32, 64, 3, 10, self.rng, change=self.recipe.change))[0]

    def chat(self, step: int) -> torch.Tensor:
        """Chats of 200 tokens; after the first third, every other one has 600 to 1400, with many keys said once."""
        batch, length, most = 16, 200, 12
        if step % 2 and step > self.recipe.chat_steps // 3:
            length = int(self.rng.choice([600, 1000, 1400]))
            batch, most = 4000 // length, 60
        return self.losses(*chats(self.words, self.marks, batch, length, most, self.rng, self.recipe.change))[0]

    def far(self, step: int) -> torch.Tensor:
        """Chats of 200 tokens and of 1400 to 2200 by turns."""
        batch, length, most = (2, int(self.rng.choice([1400, 1800, 2200])), 80) if step % 2 else (16, 200, 12)
        return self.losses(*chats(self.words, self.marks, batch, length, most, self.rng, self.recipe.change))[0]

    def losses(self, ids: np.ndarray, known: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a batch, and the share of tokens known from before that the model says right."""
        tokens, here = torch.from_numpy(ids), torch.from_numpy(known)[:, 1:]
        logits = self.model(input_ids=tokens, use_cache=False).logits[:, :-1]
        losses = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        # What cannot be known teaches which words there are, and little else.
        loss = losses[here].mean() + 0.1 * losses[~here].mean()
        return loss, (logits.argmax(-1) == tokens[:, 1:])[here].float().mean()


README = """# Stand-in for Qwen/Qwen2.5-7B (as the base of hsa)

A tiny `Qwen2ForCausalLM` ({millions:.2f} M parameters) with a Qwen2 tokenizer of {vocab} tokens, loaded by
`from_pretrained`. It stands for the published checkpoint where none can be had. Nothing that a seed document asks to
train is in it: no sentence of the trajectories, no semantic type, no feedback.

Made by `dvc repro -f -s standin-agent` from the recipe `standins.agent` in params.yaml: {steps} steps on random words
said again, in streams and then in chat turns. What it learnt is to say again what was said last: it is right for
{quality[copied]:.1%} of what a chat of 200 tokens holds from before, and for {quality[copied_far]:.1%} in chats of
2,000 tokens. Weights are fp16.
"""


def train(recipe: Recipe, out: str | Path) -> dict[str, float]:
    """Train, save model and tokenizer to `out` in fp16, and return the share copied right in fresh chats."""
    seed_everything(recipe.seed)
    tokenizer = build_tokenizer(recipe.vocab)
    model = build_model(recipe, tokenizer)
    copying = Copying(model, tokenizer, recipe, recipe.seed)
    # At a constant rate: copying comes all at once, late, and a falling rate would never let it.
    fit(model.parameters(), copying.short, recipe.short_steps, recipe.lr, "agent, short streams", floor=1.0)
    fit(model.parameters(), copying.long, recipe.long_steps, recipe.lr, "agent, long streams", floor=1.0)
    fit(model.parameters(), copying.chat, recipe.chat_steps, recipe.lr, "agent, chats")
    fit(model.parameters(), copying.far, recipe.far_steps, recipe.lr / 2, "agent, long chats")
    model.eval()
    fresh = Copying(model, tokenizer, recipe, recipe.seed + 1)
    quality = {}
    with torch.no_grad():
        for name, length, most in (("copied", 200, 12), ("copied_far", 2000, 60)):
            batches = [chats(fresh.words, fresh.marks, 8, length, most, fresh.rng, recipe.change) for _ in range(4)]
            quality[name] = sum(fresh.losses(*batch)[1].item() for batch in batches) / len(batches)
    quality = {name: float(f"{value:.4g}") for name, value in quality.items()}
    facts = {
        "millions": sum(p.numel() for p in model.parameters()) / 1e6,
        "vocab": len(tokenizer),
        "steps": recipe.short_steps + recipe.long_steps + recipe.chat_steps + recipe.far_steps,
    }
    with atomic_dir(out) as folder:
        model.to(torch.float16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(README.format(quality=quality, **facts), encoding="utf-8")
    return quality
