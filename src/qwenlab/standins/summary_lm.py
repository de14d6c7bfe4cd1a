"""Make the base model of the student: a tiny `Qwen2ForCausalLM` that reads thinkings and copies.

Run: dvc repro -f -s standin-summary_lm (about twelve minutes on one core).

It is not taught to summarise: that is what the student's LoRA has to learn. Copying, which that takes, does not come by
itself at this size: neither a thousand steps of text nor as many of random tokens to repeat brought it about. Two heads
of the first layer therefore begin as heads that look at the token before and the one before that (Olsson et al. 2022:
in-context copying needs such a head below it), and sequences of random tokens to repeat grow as they are mastered. One
head in each of the first two layers begins by looking around: which words belong to one thing is said within a few
words of each other.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from qwenlab.core.io import atomic_dir
from qwenlab.core.params import Params
from qwenlab.core.resume import fingerprint
from qwenlab.core.seeding import seed_everything
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.standins.looking_around import look_around
from qwenlab.standins.looking_back import look_back
from qwenlab.standins.muon import fit_muon
from qwenlab.standins.summary_lm_data import Samples

CODE = ("looking_around", "looking_back", "muon", "summary_lm_data")


class Recipe(Params):
    """Sizes and training of the stand-in."""

    seed: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    vocab: int
    steps: int
    later_steps: int
    later_lr: float
    later_muon_lr: float
    batch: int
    lr: float
    muon_lr: float
    copy_steps: int
    repeats: float
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
    """An untrained tiny model, but for the heads of `look_back` and `look_around`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(
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
    look_back(model.model)
    look_around(model.model, layer=0, head=2)
    look_around(model.model, layer=1, head=0)
    return model


class Copying:
    """Batches of random tokens to repeat, in sequences that grow as they are mastered."""

    def __init__(self, recipe: Recipe, model, vocab: int, rng: np.random.Generator):
        self.recipe, self.model, self.vocab, self.rng = recipe, model, vocab, rng
        self.longest, self.mean = 10, 7.0

    def loss(self, _: int) -> torch.Tensor:
        """Loss of one batch; short sequences come in larger batches."""
        count = max(self.recipe.batch // 2, 3 * self.recipe.batch * 10 // self.longest)
        ids, labels = repeats(count, self.longest, self.vocab, self.rng)
        loss = self.model(input_ids=ids, labels=labels).loss
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        if self.mean < 0.7 and self.longest < self.recipe.repeat_length:
            self.longest, self.mean = min(int(1.3 * self.longest) + 1, self.recipe.repeat_length), 1.5
        return loss


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
    """(ids, labels) `[count, L]`: tokens drawn from the whole vocabulary, a gap, and the same tokens again.

    No token stands twice in a sequence, so that what follows a token is certain. Length and gap are drawn anew for
    each batch: with one length, a model learns to look back so many places, and not what stood before.
    """
    length = int(rng.integers(longest // 2, longest + 1))
    gap = int(rng.integers(0, 9))
    rows = np.stack([rng.permutation(vocab)[: length + gap] for _ in range(count)])
    ids = torch.from_numpy(np.concatenate([rows, rows[:, :length]], 1))
    labels = ids.clone()
    labels[:, : length + gap + 1] = -100
    return ids, labels


def loss_of(model, tokenizer, pairs: list[tuple[str, str]], together: int = 8) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens. Padding on the right needs no mask under causal attention.

    Pairs of like length go together, `together` at a time: padding would be a third of the work.
    """
    pairs = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    total, count = torch.zeros(()), 0
    for start in range(0, len(pairs), together):
        ids, labels = encode(tokenizer, pairs[start : start + together])
        learned = int((labels[:, 1:] != -100).sum())
        total, count = total + model(input_ids=ids, labels=labels).loss * learned, count + learned
    return total / count


README = """# Stand-in for Qwen/Qwen2.5-3B-Instruct (base of the student of thinkseg)

A tiny `Qwen2ForCausalLM` ({millions:.2f} M parameters) with a Qwen2 tokenizer of {vocab} tokens, loaded by
`from_pretrained`. It stands for the published checkpoint where none can be had, so that the same code runs on a
laptop. It was **not** trained to summarise: no thinking ever stood beside a summary of it, or beside any JSON. That is
left to the student's LoRA.

Made by `dvc repro -f -s standin-summary_lm` from the recipe `standins.summary_lm` in params.yaml: {recipe.copy_steps}
steps of repeating random tokens, then {recipe.steps} and {recipe.later_steps} steps on text made on the fly: thinkings
about things of no particular clip, questions about them, lists of two or three of the five facts of each thing, in any
order and layout that is asked for (so that it learns which facts belong together), lines of words as JSON with keys of
any name, words to repeat. In the second part most are lists that begin with what tells things apart. Two heads of the
first layer began as heads that look one and two places back, and one in each of the first two layers as a head that
looks around; without the former so small a model did not learn to copy. Matrices were trained by Muon, the rest by
AdamW.

Nats a token on fresh samples: repeating {quality[repeating]:.3f}, lists as JSON {quality[json]:.3f}, questions about
thinkings {quality[reading]:.3f}, facts listed {quality[listing]:.3f}, and with what tells things apart first
{quality[telling]:.3f}; thinkings by themselves {quality[thinking]:.3f}. Weights are fp16.
"""


def language(recipe: Recipe, model, tokenizer, draw: Callable[[int], list], rng: np.random.Generator):
    """A function that makes the loss of a step: drawn pairs, and random tokens to repeat."""

    def step_loss(_: int) -> torch.Tensor:
        count = round(recipe.repeats * recipe.batch)
        ids, labels = repeats(count, recipe.repeat_length, len(tokenizer), rng)
        loss = loss_of(model, tokenizer, draw(recipe.batch - count))
        return recipe.repeats * model(input_ids=ids, labels=labels).loss + loss

    return step_loss


def teach(recipe: Recipe, model, tokenizer, work: Path) -> None:
    """Copying and language of all kinds, then lists that tell things apart. A part that `work` holds is not redone.

    Each part draws from seeds of its own, so that a run that was cut off ends as one that was not.
    """
    rngs = [np.random.default_rng(recipe.seed + 4), np.random.default_rng(recipe.seed + 6)]

    def first() -> None:
        copying = Copying(recipe, model, len(tokenizer), rngs[0])
        fit_muon(model, copying.loss, recipe.copy_steps, recipe.lr, recipe.muon_lr, "copying", floor=0.5)
        loss = language(recipe, model, tokenizer, Samples(recipe.seed + 2).batch, rngs[0])
        fit_muon(model, loss, recipe.steps, recipe.lr, recipe.muon_lr, "language of all kinds")

    def second() -> None:
        loss = language(recipe, model, tokenizer, Samples(recipe.seed + 5).later_batch, rngs[1])
        fit_muon(model, loss, recipe.later_steps, recipe.later_lr, recipe.later_muon_lr, "things told apart")

    for part in (first, second):
        folder = work / part.__name__
        if folder.exists():
            print(f"{folder}: goes on from there.", flush=True)
            # The head is the embedding.
            model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            continue
        part()
        with atomic_dir(folder) as unfinished:
            model.save_pretrained(unfinished)


def train(recipe: Recipe, out: str | Path) -> dict[str, float]:
    """Train, save model and tokenizer to `out` in fp16, and return the quality on fresh samples."""
    seed_everything(recipe.seed)
    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    code = [Path(__file__), *(Path(__file__).with_name(f"{name}.py") for name in CODE)]
    work = Path(tempfile.gettempdir()) / f"qwenlab-summary_lm-{fingerprint([recipe.model_dump()], [], code)[:16]}"
    teach(recipe, model, tokenizer, work)
    fresh = Samples(recipe.seed + 3)
    kinds = {"repeating": fresh.repeat, "json": fresh.as_json, "reading": fresh.reading, "listing": fresh.listing,
             "telling": fresh.telling, "thinking": fresh.thinking}  # fmt: skip
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
    shutil.rmtree(work)
    return quality
