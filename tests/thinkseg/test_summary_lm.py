"""The base of the student: what it is trained on, and how its heads begin."""

import json

import torch

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


def test_samples_follow_from_the_seed():
    assert Samples(3).batch(20) == Samples(3).batch(20) != Samples(4).batch(20)


def test_a_sequence_to_repeat_is_repeated_and_only_the_copy_has_labels():
    import numpy as np

    ids, labels = repeats(4, 20, 100, np.random.default_rng(0))
    learned = (labels[0] >= 0).nonzero()[:, 0]
    length = len(learned) + 1  # the first token of the copy cannot be known
    assert torch.equal(ids[:, :length], ids[:, -length:])
    assert torch.equal(labels[:, learned], ids[:, learned])


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
