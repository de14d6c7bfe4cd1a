"""Real trainings of a few steps through LLaMA-Factory's own entry, `run_exp`."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwenlab.core.errors import UserError
from qwenlab.hsa.attention import load_hsa
from qwenlab.hsa.feedback import FEEDBACK_TOKEN

RUNS = {
    "Qwen2, full, gradient checkpointing": {"model": "qwen2"},
    "Qwen3, LoRA": {"model": "qwen3", "finetuning_type": "lora"},
    "Qwen2.5-VL with images": {"model": "qwen2.5-vl", "template": "qwen2_vl", "cutoff_len": 256},
    "Qwen2.5-VL with images, neat packing": {
        "model": "qwen2.5-vl", "template": "qwen2_vl", "cutoff_len": 512, "packing": True, "neat_packing": True,
    },
    "Qwen2, neat packing": {"model": "qwen2", "packing": True, "neat_packing": True, "cutoff_len": 312},
}  # fmt: skip
NEAR = {"preset": "published", "window": [None, None, 5]}
LEARNING = {"preset": "published", "learn_pair": True, "learn_scale": True, "type_embeddings": True}


@pytest.mark.parametrize("name", RUNS)
def test_noop_hsa_trains_as_hsa_off_does_and_the_published_one_otherwise(name, train, image_data):
    options = dict(RUNS[name])
    if "images" in name:
        options["dataset_dir"] = str(image_data)
    off, plain = train(**options)
    noop, same = train(**options, hsa={"preset": "noop"})
    published, _ = train(**options, hsa=NEAR)
    assert len(off) == 4 and all(math.isfinite(number) for step in off + published for number in step)
    assert noop == off
    assert published != off
    weights = "adapter_model.safetensors" if "LoRA" in name else "model.safetensors"
    before, after = load_file(plain / weights), load_file(same / weights)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("impl", ["eager", "gather"])
def test_the_implementations_agree(impl, train):
    sdpa, _ = train(hsa=NEAR)
    other, _ = train(hsa={**NEAR, "impl": impl})
    assert sdpa == [pytest.approx(step, rel=1e-3) for step in other]


def test_packing_works_where_the_rows_are_no_multiple_of_8_long(train):
    steps, _ = train(packing=True, neat_packing=True, cutoff_len=309, hsa=NEAR, feedback={})
    assert len(steps) == 4 and all(math.isfinite(loss) for loss, _ in steps)


def test_feedback_alone_adds_its_token_and_changes_the_loss(train):
    off, _ = train()
    masked, out = train(feedback={"occurrence": "last"})
    assert masked != off and not (out / "hsa.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer.encode(FEEDBACK_TOKEN, add_special_tokens=False)) == 1
    assert AutoModelForCausalLM.from_pretrained(out).get_input_embeddings().weight.shape[0] >= len(tokenizer)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_learned_parameters_are_trained_kept_and_taken_up_again(kind, train, models):
    options = {"model": "qwen3", "finetuning_type": kind, "feedback": {}, "cutoff_len": 200}
    steps, out = train(**options, hsa=LEARNING, save_strategy="steps", save_steps=2, max_steps=4)
    learned = load_file(out / "hsa.safetensors")
    assert learned.keys() == {"pair", "log_scale", "type_table"} and all(v.abs().max() > 0 for v in learned.values())
    model = AutoModelForCausalLM.from_pretrained(models / "qwen3")
    hsa = load_hsa(model, out)  # qwenlab reads what LLaMA-Factory's run kept
    assert torch.equal(hsa.pair, learned["pair"])
    # Resumed at step 2, the other half of the run is the same.
    again, there = train(**options, hsa=LEARNING, resume_from_checkpoint=str(out / "checkpoint-2"), max_steps=4)
    assert again == [pytest.approx(step, rel=1e-4) for step in steps]
    resumed = load_file(there / "hsa.safetensors")
    assert all(torch.allclose(resumed[key], learned[key], atol=1e-5) for key in learned)
    # And a later run goes on with them.
    _, later = train(**options, hsa={"folder": str(out)}, learning_rate=0.0)
    assert all(torch.equal(value, learned[key]) for key, value in load_file(later / "hsa.safetensors").items())


def test_datasets_with_and_without_types_can_be_mixed(train, tmp_path, data):
    folder = tmp_path / "mixed"
    folder.mkdir()
    info = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    (folder / "tidy.json").write_bytes((data / "tidy.json").read_bytes())
    chat = [{"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "The hall."}]}] * 4
    (folder / "chat.json").write_text(json.dumps(chat), encoding="utf-8")
    info["chat"] = {"file_name": "chat.json", "formatting": "sharegpt"}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    steps, _ = train(dataset="tidy,chat", dataset_dir=str(folder), hsa=NEAR, feedback={"missing": "keep"})
    assert len(steps) == 4 and all(math.isfinite(loss) for loss, _ in steps)
    with pytest.raises(UserError, match='starts with "Hello\\?": no <\\|feedback'):
        train(dataset="tidy,chat", dataset_dir=str(folder), feedback={})


def test_stored_tokens_train_as_fresh_ones_do(train, tmp_path):
    options = {"hsa": NEAR, "feedback": {}, "tokenized_path": str(tmp_path / "tokens")}
    assert train(**options)[0] == train(**options)[0]  # the second time they are read from there
    untyped = str(tmp_path / "untyped")
    train(tokenized_path=untyped)
    with pytest.raises(UserError, match="feature 0: no semantic_ids"):
        train(tokenized_path=untyped, hsa=NEAR)


def test_streamed_data_have_types_too(train):
    steps, _ = train(hsa=NEAR, feedback={}, streaming=True, max_steps=3, dataloader_num_workers=1)
    assert len(steps) == 3 and all(math.isfinite(loss) for loss, _ in steps)


def test_an_error_survives_the_processes_that_tokenize(train):
    with pytest.raises(UserError, match="cut away by cutoff_len"):
        train(hsa=NEAR, feedback={}, cutoff_len=60, preprocessing_num_workers=2)


def test_evaluation_has_types_too(train):
    _, out = train(hsa=NEAR, feedback={}, val_size=0.25, do_eval=True, eval_strategy="steps", eval_steps=2)
    history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert all(math.isfinite(step["eval_loss"]) for step in history if "eval_loss" in step)


def test_two_processes_train_as_one_does(train, arguments, tmp_path):
    from omegaconf import OmegaConf

    settings = {"hsa": LEARNING, "feedback": {}, "preprocessing_num_workers": 2}
    one, _ = train(**settings, per_device_train_batch_size=6)
    file, out = tmp_path / "two.yaml", tmp_path / "two"
    OmegaConf.save(arguments(**settings, output_dir=str(out), ddp_backend="gloo"), file)
    command = [sys.executable, "-m", "qwenlab.hsa.llamafactory", "train", str(file)]
    environment = os.environ | {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))
    two = [(step["loss"], step["grad_norm"]) for step in state["log_history"] if "loss" in step]
    assert two == [pytest.approx(step, rel=1e-3) for step in one]
    assert (out / "hsa.safetensors").is_file()
