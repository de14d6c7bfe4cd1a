"""The base of the student: what it is trained on, and how its heads begin."""

import json
import re
import shutil

import torch

from qwenlab.standins.looking_around import look_around
from qwenlab.standins.looking_back import look_back
from qwenlab.standins.summary_lm import repeats
from qwenlab.standins.summary_lm_data import Samples


def test_no_sample_is_the_students_task():
    """No answer to a thinking is JSON, and no JSON has the keys of a summary together."""
    for prompt, answer in Samples(0).batch(400):
        if "<think>" in prompt:
            assert "{" not in answer
        if answer.startswith("{"):
            assert not {"key_points", "primary", "secondary", "sam3_phrases"} <= set(json.loads(answer))


def test_a_list_has_at_most_three_of_a_things_five_facts_and_what_was_asked_for():
    samples = Samples(1)
    for _ in range(200):
        prompt, answer = samples.listing()
        asks = re.findall(r"Of [^.<]*? list ((?:size|color|kind|place|motion|\W)+)", prompt)
        lines = answer.split("\n")
        assert len(asks) == len(lines)
        for ask, line in zip(asks, lines, strict=True):
            names = re.findall(r"[a-z]+", ask)
            assert 2 <= len(set(names)) == len(names) <= 3
            assert ("moving" in line or "staying" in line) == ("motion" in names and line != "nothing")


def test_samples_follow_from_the_seed():
    assert Samples(3).batch(20) == Samples(3).batch(20) != Samples(4).batch(20)


def test_a_sequence_to_repeat_is_repeated_and_only_the_copy_has_labels():
    import numpy as np

    ids, labels = repeats(4, 20, 100, np.random.default_rng(0))
    learned = (labels[0] >= 0).nonzero()[:, 0]
    length = len(learned) + 1  # the first token of the copy cannot be known
    assert torch.equal(ids[:, :length], ids[:, -length:])
    assert torch.equal(labels[:, learned], ids[:, learned])


def test_a_part_of_the_training_that_is_done_is_not_redone(tmp_path):
    from qwenlab.standins.summary_lm import Recipe, build_model, build_tokenizer, teach

    recipe = Recipe(
        seed=0, hidden=32, layers=2, heads=4, mlp=32, vocab=300, steps=1, later_steps=1, later_lr=0.001,
        later_muon_lr=0.001, batch=4, lr=0.001, muon_lr=0.001, copy_steps=1, repeats=0.25, repeat_length=12,
    )  # fmt: skip
    tokenizer = build_tokenizer(recipe)
    models = []
    for _ in range(2):
        torch.manual_seed(len(models))  # the second model begins with other weights, but goes on from the first part
        model = build_model(recipe, tokenizer)
        teach(recipe, model, tokenizer, tmp_path)
        models.append(model)
        shutil.rmtree(tmp_path / "second")
    for name, weight in models[0].state_dict().items():
        assert torch.equal(weight, models[1].state_dict()[name]), name


def test_a_head_that_looks_back_does():
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    model = Qwen2Model(
        Qwen2Config(
            vocab_size=50, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, attn_implementation="eager",
        )
    )  # fmt: skip
    look_back(model)
    weights = model(torch.arange(20)[None], output_attentions=True).attentions[0][0]
    assert (weights[0, 2:].argmax(-1) == torch.arange(1, 19)).all()
    assert (weights[1, 3:].argmax(-1) == torch.arange(1, 18)).all()


def test_a_head_that_looks_around_sees_the_last_words():
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    model = Qwen2Model(
        Qwen2Config(
            vocab_size=50, hidden_size=128, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=4, attn_implementation="eager",
        )
    )  # fmt: skip
    look_around(model, layer=0, head=2)
    weights = model(torch.arange(40)[None], output_attentions=True).attentions[0][0]
    assert weights[2, 39, 30:].sum() > 0.55
    assert weights[1, 39, 30:].sum() < 0.4  # a head as new models have them


def test_pairs_in_groups_of_like_length_have_the_loss_of_one_batch():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qwenlab.core.tokenizer import train_tokenizer
    from qwenlab.standins.summary_lm import loss_of

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["user assistant"], 270)
    model = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=2)
    ).eval()  # fmt: skip
    pairs = [("a" * n, "b" * (9 - n)) for n in range(1, 9)]
    with torch.no_grad():
        assert torch.allclose(loss_of(model, tokenizer, pairs, 3), loss_of(model, tokenizer, pairs, 99), atol=1e-5)
