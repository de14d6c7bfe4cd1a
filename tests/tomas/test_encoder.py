"""The resource encoder and phase 0."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.tomas.encoder import (
    EncoderConfig,
    ResourceEncoderForPretraining,
    ResourceMLP,
    bounds,
    padded,
    token_losses,
    tool_name_embeddings,
)
from qwenlab.tomas.model import load_backbone
from qwenlab.tomas.pretrain import EncoderPretrainDataset, Pretrain, fields_correct, reconstruct, run, train

SETTINGS = Pretrain(
    seed=0, mlp_size=32, heads=2, fourier=4, jitter=0.05, repeats=1, epochs=2, batch=64, lr=0.01, hard_tokens=0.0,
    target_loss=0.0, latency_digits=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def lm(runtime):
    return load_backbone(runtime.model, "float32", "cpu")


@pytest.fixture(scope="module")
def few(profile):
    """Every 40th configuration, as a profile of its own."""
    ids = np.arange(0, len(profile), 40)
    return type(profile)(profile.registry, profile.tool_ids[ids], profile.resources[ids])


def test_the_encoder_gives_one_vector_of_the_models_width_a_configuration(encoder, profile):
    vectors = encoder(torch.tensor(profile.tool_ids[:5]), torch.tensor(profile.resources[:5]))
    assert vectors.shape == (5, 32) and vectors.isfinite().all()


def test_tool_names_are_frozen_and_everything_else_is_trained(encoder):
    trained = {name.split(".")[0] for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {"mlp", "attention", "stream_norm", "norm", "output", "scale"}
    assert "tool_embeddings" in dict(encoder.named_buffers())


def test_stream_a_is_the_mean_embedding_of_the_name(lm):
    model, tokenizer = lm
    ids = tokenizer("object_detection")["input_ids"]
    expected = model.get_input_embeddings().weight[ids].mean(0)
    torch.testing.assert_close(tool_name_embeddings(model, tokenizer, ["object_detection"])[0], expected)


def test_sine_features_tell_neighbouring_latencies_apart_better_than_the_plain_mlp(profile):
    resources = torch.tensor(profile.resources[:1]).repeat(2, 1)
    resources[:, 5] = torch.tensor([5800.0, 5900.0])
    distance = []
    for fourier in (0, 8):
        torch.manual_seed(0)
        config = EncoderConfig(hidden_size=32, mlp_size=64, heads=2, fourier=fourier)
        first, second = ResourceMLP(config, *bounds(torch.tensor(profile.resources)))(resources.float())
        distance.append(((first - second).norm() / first.norm()).item())
    assert distance[1] > 5 * distance[0]


def test_a_field_that_never_changes_is_no_division_by_zero():
    same = torch.ones(4, 6)
    config = EncoderConfig(hidden_size=8, mlp_size=8, heads=1, fourier=2)
    assert ResourceMLP(config, *bounds(same))(same).isfinite().all()


def test_a_saved_encoder_comes_back_the_same(encoder, profile, tmp_path: Path):
    encoder.save_pretrained(tmp_path)
    again = ResourceEncoderForPretraining.from_pretrained(tmp_path)
    inputs = torch.tensor(profile.tool_ids[:9]), torch.tensor(profile.resources[:9])
    assert torch.equal(again(*inputs), encoder(*inputs))
    with pytest.raises(UserError, match="no such file"):
        ResourceEncoderForPretraining.from_pretrained(tmp_path / "elsewhere")


def test_the_prefix_loss_is_the_models_own_loss_on_prefix_and_text(lm):
    model, tokenizer = lm
    tokens, labels = padded([tokenizer(text)["input_ids"] for text in ("Tool a.", "A longer sentence.")], 0)
    prefix = torch.randn(2, 32)
    embedded = torch.cat([prefix[:, None], model.get_input_embeddings()(tokens)], 1)
    whole = torch.cat([torch.full((2, 1), -100), labels], 1)
    expected = model(inputs_embeds=embedded, labels=whole).loss
    torch.testing.assert_close(token_losses(model, prefix, tokens, labels).mean(), expected)


def test_jitter_moves_the_latency_by_at_most_five_percent_and_the_sentence_says_so(profile, lm):
    tokenizer = lm[1]
    data = EncoderPretrainDataset(profile, tokenizer, range(50), 2, jitter=0.05, repeats=3)
    assert len(data) == 150
    moved = 0
    for index in range(0, 150, 7):
        _, vector, ids = data[index]
        row = profile.resources[index % 50]
        assert np.array_equal(vector[:5], row[:5]) and abs(float(vector[5]) / row[5] - 1) <= 0.05
        said = float(tokenizer.decode(ids).split("latency is ")[1].split(" ms")[0])
        assert abs(said / float(vector[5]) - 1) <= 0.05
        moved += float(vector[5]) != row[5]
    assert moved > 15
    first = float(data[0][1][5])
    data.epoch = 1
    assert float(data[0][1][5]) != first


def test_training_changes_the_encoder_only_and_lowers_its_loss(few, lm, capsys):
    model, tokenizer = lm
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(SETTINGS, few, np.zeros(len(few), bool), model, tokenizer)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
    losses = [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines() if "clean" in line]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_training_stops_at_the_target_loss(few, lm, capsys):
    train(SETTINGS.model_copy(update={"target_loss": 100.0}), few, np.zeros(len(few), bool), *lm)
    assert capsys.readouterr().out.count("clean") == 1


def test_metrics_tell_seen_rows_from_new_ones(few, lm, runtime, tmp_path: Path):
    new = np.zeros(len(few), bool)
    new[::5] = True
    run(SETTINGS.model_copy(update={"epochs": 1}), runtime, few, new, tmp_path / "out", tmp_path / "phase0.json")
    metrics = json.loads((tmp_path / "phase0.json").read_text())
    assert set(metrics["loss"]) == set(metrics["categorical_exact"]) == {"all", "seen", "new"}
    assert set(metrics["fields"]) == {
        "tool", "input_size", "cpu_cores", "memory_gb", "gpu_sm", "gpu_memory_gb", "latency_ms"
    }  # fmt: skip


def test_reconstruction_reads_what_was_said_and_nothing_else(profile, lm, encoder):
    few = type(profile)(profile.registry, profile.tool_ids[:3], profile.resources[:3])
    assert len(reconstruct(*lm, encoder, few)) == 3
    right = {name: str(value) for name, value in few.row(0).items()}
    near = {**right, "latency_ms": str(few.latency[0] * 1.04)}
    wrong = {**right, "latency_ms": "12x", "tool": "other"}
    correct = fields_correct([right, None, wrong], few)
    assert correct["tool"].tolist() == [True, False, False] and correct["latency_ms"].tolist() == [True, False, False]
    assert fields_correct([near, None, None], few)["latency_ms"][0]
