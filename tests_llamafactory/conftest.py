"""Tiny random models with their tokenizers, typed conversations, and LLaMA-Factory's own entry.

Run with `make test-llamafactory`: LLaMA-Factory wants older packages than the rest of this repository.
"""

import json
import os
import random
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", LLAMAFACTORY_VERBOSITY="WARN", CUDA_VISIBLE_DEVICES="")

import torch
from PIL import Image

from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.hsa.llamafactory import run

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
PLACES = ("kitchen", "garden", "cellar", "attic", "hall", "study")
THINGS = ("key", "lamp", "rope", "coin", "map", "bell")


def typed(role, text, kind=None):
    return {"from": role, "value": text, "semantic_type": kind}


def conversation(n):
    """Goal GLOBAL, events LANDMARK, walking NOISE; no two of them equally long, and each with its feedback."""
    rng = random.Random(n)
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    walk = " ".join(f"I pass the {rng.choice(PLACES)}." for _ in range(1 + n % 5))
    return {
        "conversations": [
            typed("system", "You tidy a house.", "GLOBAL_CONDITION"),
            typed("human", f"Where is the {thing}?"),
            typed("gpt", walk, "PROCESS_NOISE"),
            typed("observation", f"You see the {thing} in the {place}.", "KEY_EVENT"),
            typed("gpt", f"It is in the {rng.choice(PLACES)}.", "NOISE"),
            typed("human", "<|feedback|>That was wrong. Try again.", "LANDMARK"),
            typed("gpt", f"The {thing} is in the {place}.", "GLOBAL"),
        ]
    }


def write_data(folder, datasets, formatting="sharegpt_hsa", **info):
    """A dataset folder as LLaMA-Factory reads it."""
    entries = {}
    for name, records in datasets.items():
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
        entries[name] = {"file_name": f"{name}.json", "formatting": formatting, **info}
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of a run is found again by the next one."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def tokenizer():
    texts = [message["value"] for n in range(30) for message in conversation(n)["conversations"]]
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="session")
def models(tmp_path_factory, tokenizer):
    """Folders of checkpoints: qwen2, qwen3, qwen2.5-vl; their tokenizer lacks the feedback token."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    sizes = SIZES | {"vocab_size": len(tokenizer)}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end",
        }.items()
    }  # fmt: skip
    text = sizes | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    made = {
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**sizes)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)),
        "qwen2.5-vl": Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids, tie_word_embeddings=False)
        ),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(), tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor()
    ).save_pretrained(root / "qwen2.5-vl")
    return root


@pytest.fixture(scope="session")
def records():
    return [conversation(n) for n in range(12)]


@pytest.fixture(scope="session")
def data(tmp_path_factory, records):
    return write_data(tmp_path_factory.mktemp("data"), {"tidy": records})


@pytest.fixture(scope="session")
def image_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    records = [conversation(n) for n in range(6)]
    for n, record in enumerate(records):
        picture = torch.randint(0, 256, (56 + 28 * (n % 2), 84, 3), generator=torch.Generator().manual_seed(n))
        Image.fromarray(picture.byte().numpy()).save(folder / f"{n}.png")
        record["images"] = [str(folder / f"{n}.png")]
        record["conversations"][3]["value"] = "<image>" + record["conversations"][3]["value"]
    return write_data(folder, {"tidy": records}, columns={"messages": "conversations", "images": "images"})


@pytest.fixture
def arguments(models, data, tmp_path):
    """What a LLaMA-Factory YAML holds, for a few steps on the CPU."""

    def make(model="qwen2", **more):
        return {
            "model_name_or_path": str(models / model), "stage": "sft", "do_train": True, "finetuning_type": "full",
            "dataset": "tidy", "dataset_dir": str(data), "template": "qwen3" if model == "qwen3" else "qwen",
            "cutoff_len": 160, "output_dir": str(tmp_path / "out"), "logging_steps": 1, "max_steps": 4,
            "per_device_train_batch_size": 3, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "seed": 0,
            "report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
            "dataloader_num_workers": 0, "overwrite_output_dir": True,
        } | more  # fmt: skip

    return make


@pytest.fixture
def train(arguments, tmp_path):
    """LLaMA-Factory's run_exp by way of the plugin; returns (loss, grad_norm) of every step."""
    runs = iter(range(100))

    def go(model="qwen2", **more):
        out = tmp_path / f"run{next(runs)}"
        run(arguments(model, output_dir=str(out), **more))
        history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        return [(step["loss"], step["grad_norm"]) for step in history if "loss" in step], Path(out)

    return go
