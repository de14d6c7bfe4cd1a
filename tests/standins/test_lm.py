"""The stored language stand-in, and the samples it is made from."""

import json
import re
from pathlib import Path

import pytest
import torch

from qwenlab.standins.lm import Recipe, Trainer, build_model, build_tokenizer
from qwenlab.standins.lm_data import Samples, number_tokens
from qwenlab.tomas.language import DEADLINES, FRAMES
from qwenlab.tomas.registry import read_registry


@pytest.fixture(scope="module")
def registry(root: Path):
    return read_registry(root / "src/qwenlab/tomas/tools.json")


@pytest.fixture(scope="module")
def stored(root: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = root / "data/standins/lm"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def test_it_is_the_published_class_and_small_enough_for_git(stored, root: Path):
    assert type(stored[0]).__name__ == "Qwen2ForCausalLM"
    assert sum(p.stat().st_size for p in (root / "data/standins/lm").iterdir()) < 8e6
    assert (root / "data/standins/lm/README.md").read_text().startswith("# Stand-in for Qwen/Qwen2.5-7B")


def test_any_text_survives_the_tokenizer(stored):
    for text in ("latency is 5800 ms.", " 7 and 100000", "0.25 GB, 中文 ok", "Tool x configuration: input size small"):
        assert stored[1].decode(stored[1](text)["input_ids"]) == text


def test_a_number_is_its_first_two_digits_and_its_zeros(stored):
    tokenizer = stored[1]
    assert tokenizer.convert_ids_to_tokens(tokenizer(" 5800")["input_ids"]) == [" 58", "00"]
    assert len(number_tokens()) == 100


def test_it_knows_what_a_task_asks_for_also_in_phrasings_that_no_training_showed(stored, registry):
    """Frames and deadlines of the test split occur nowhere in the samples."""
    import numpy as np

    from qwenlab.tomas.language import write_task

    model, tokenizer = stored
    rng, right = np.random.default_rng(3), []
    for _ in range(60):
        tool, size = int(rng.integers(7)), int(rng.integers(3))
        task = write_task(registry, tool, size, 5000.0, "test", rng)
        prompt = f'<|im_start|>user\n{task}<|im_end|>\n<|im_start|>assistant\n{{"tool": "'
        ids = tokenizer(prompt, return_tensors="pt")
        said = tokenizer.decode(
            model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        )
        right.append(said.startswith(registry.names[tool]))
    assert sum(right) / len(right) >= 0.95


def test_no_sample_is_phrased_as_test_or_validation_tasks_are(registry):
    """Frames (with anything in their gaps) and ways of saying a deadline of those splits occur in no task."""
    frames, ways = (
        [
            re.compile(re.sub(r"\\{\w+\\}", gap, re.escape(text)))
            for split in ("validation", "test")
            for text in texts[split]
        ]
        for texts, gap in ((FRAMES, ".+"), (DEADLINES, r"\\d+"))
    )
    samples = Samples(registry, 0)
    for _ in range(2000):
        task, _ = samples.task()
        assert not any(one.fullmatch(task) for one in frames) and not any(one.search(task) for one in ways), task


def test_samples_are_the_same_for_the_same_seed(registry):
    one, other = Samples(registry, 5), Samples(registry, 5)
    assert [one.task() for _ in range(9)] == [other.task() for _ in range(9)]
    assert one.configuration() == other.configuration()


def test_a_few_steps_of_the_recipe_lower_the_loss(registry):
    torch.manual_seed(0)
    recipe = Recipe(seed=0, hidden=32, layers=1, heads=2, mlp=64, vocab=400, steps=12, batch=8, lr=0.01)
    tokenizer = build_tokenizer(registry, recipe.vocab)
    trainer = Trainer(build_model(recipe, tokenizer), tokenizer, Samples(registry, 1), recipe.batch)
    optimiser = torch.optim.AdamW(trainer.parameters(), lr=recipe.lr)
    losses = []
    for step in range(recipe.steps):
        loss = trainer.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_stored_quality_is_what_its_metrics_say(root: Path):
    quality = json.loads((root / "metrics/standins/lm.json").read_text())
    assert quality["configurations"] < 0.025
